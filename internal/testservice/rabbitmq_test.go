//go:build unix

package testservice

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// connect opens a connection with a channel, or fails the test.
func connect(t *testing.T, url string) (*amqp.Connection, *amqp.Channel) {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return conn, ch
}

// fill declares a durable queue and publishes n confirmed messages to it.
func fill(t *testing.T, ch *amqp.Channel, queue string, args amqp.Table, n int) {
	t.Helper()
	if _, err := ch.QueueDeclare(queue, true, false, false, false, args); err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), rabbitPatience)
	defer cancel()
	for range n {
		c, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false, amqp.Publishing{DeliveryMode: 2, Body: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := c.WaitContext(ctx); !ok || err != nil {
			t.Fatalf("confirmed: %v, %v", ok, err)
		}
	}
}

func (s *RabbitMQServer) wantDepth(t *testing.T, queue string, ready, unacked int) {
	t.Helper()
	s.wait("depth of "+queue, func() bool {
		r, u := s.Depth(queue)
		return r == ready && u == unacked
	})
}

func TestRabbitMQIsOnesOwn(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	one := RabbitMQ(t)
	first := time.Since(begin)
	two := RabbitMQ(t)
	t.Logf("first virtual host after %v, second after another %v", first, time.Since(begin)-first)
	if one.URL == two.URL || one.Addr != two.Addr || one.Pid() != two.Pid() {
		t.Fatalf("%s and %s: expected two virtual hosts on one node", one.URL, two.URL)
	}
	_, ch := connect(t, one.URL)
	fill(t, ch, "ünï", nil, 2)
	conn, other := connect(t, two.URL)
	fill(t, other, "q", nil, 1)
	if _, _, err := ch.Get("ünï", false); err != nil {
		t.Fatal(err)
	}
	one.wantDepth(t, "ünï", 1, 1)
	two.Put("q", []byte("\x00ü"))
	two.wantDepth(t, "q", 2, 0)
	two.wantDepth(t, "ünï", -1, -1)

	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	if n := two.CloseConnections(); n != 1 {
		t.Errorf("closed %d connections; expected 1", n)
	}
	if err := within(t, closed); err == nil || err.Code != amqp.ConnectionForced {
		t.Errorf("connection ended with %v; expected CONNECTION_FORCED", err)
	}
	if n := one.Connections(); n != 1 {
		t.Errorf("%d connections to the other virtual host; expected 1", n)
	}
}

func TestRabbitMQGoesWithTheTest(t *testing.T) {
	t.Parallel()
	var gone *RabbitMQServer
	t.Run("inner", func(t *testing.T) {
		gone = RabbitMQ(t)
		connect(t, gone.URL)
	})
	if names := string(RabbitMQ(t).Manage("GET", "/api/vhosts", "")); strings.Contains(names, gone.Vhost) {
		t.Errorf("%s is still among %s", gone.Vhost, names)
	}
}

func TestRabbitMQBreaks(t *testing.T) {
	t.Parallel()
	s := StartRabbitMQ(t, "heartbeat = 9")
	conn, ch := connect(t, s.URL)
	if conn.Config.Heartbeat != 9*time.Second {
		t.Errorf("heartbeat is %v; the configured line says 9 s", conn.Config.Heartbeat)
	}
	blocked := conn.NotifyBlocked(make(chan amqp.Blocking, 2))
	fill(t, ch, "classic", nil, 3)
	fill(t, ch, "quorum", amqp.Table{"x-queue-type": "quorum"}, 3)

	s.SetMemoryAlarm(true)
	if err := ch.PublishWithContext(t.Context(), "", "classic", false, false, amqp.Publishing{}); err != nil {
		t.Fatal(err)
	}
	if b := within(t, blocked); !b.Active {
		t.Error("the memory alarm does not block")
	}
	s.SetMemoryAlarm(false)
	if b := within(t, blocked); b.Active {
		t.Error("the end of the memory alarm does not unblock")
	}
	s.wantDepth(t, "classic", 4, 0) // it waited in the socket, and is not durable

	s.SyncQueues()
	pid := s.Pid()
	s.Kill()
	if s.Pid() != 0 || syscall.Kill(pid, 0) == nil {
		t.Error("it lives after Kill")
	}
	begin := time.Now()
	s.Restart()
	t.Logf("restarted in %v", time.Since(begin))
	conn, ch = connect(t, s.URL)
	s.wantDepth(t, "classic", 3, 0)
	deliveries, err := ch.Consume("quorum", "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	for n := range 3 {
		select {
		case _, ok := <-deliveries:
			if !ok {
				t.Fatal("the channel was closed")
			}
		case <-time.After(rabbitPatience):
			t.Fatalf("only %d of 3 messages came from the quorum queue after the restart", n)
		}
	}
	t.Logf("quorum after %v", time.Since(begin))

	s.SetConsumerTimeout(time.Second)
	slow, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	closed := slow.NotifyClose(make(chan *amqp.Error, 1))
	if _, err := slow.Consume("classic", "", false, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := within(t, closed); err == nil || err.Code != amqp.PreconditionFailed {
		t.Errorf("channel ended with %v; expected the consumer timeout's PRECONDITION_FAILED", err)
	}

	s.Freeze()
	frozen := make(chan error, 1)
	go func() {
		_, err := conn.Channel()
		frozen <- err
	}()
	select {
	case err := <-frozen:
		t.Fatalf("a frozen node answers: %v", err)
	case <-time.After(50 * time.Millisecond): // absence needs a time
	}
	s.Thaw()
	if err := within(t, frozen); err != nil {
		t.Errorf("after the thaw: %v", err)
	}
}

// within receives from c with a deadline.
func within[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(rabbitPatience):
		t.Fatal("nothing came in time")
		panic("unreachable")
	}
}

func TestRabbitMQCluster(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	c := StartRabbitMQCluster(t, 3)
	t.Logf("started in %v", time.Since(begin))
	urls := strings.Split(c.URL, ";")
	if len(urls) != 3 || c.Running() != 3 {
		t.Fatalf("%d running, URL %s; expected three", c.Running(), c.URL)
	}
	_, ch := connect(t, urls[1])
	fill(t, ch, "q", amqp.Table{"x-queue-type": "quorum"}, 5)
	leader := c.Leader("q")
	leader.Kill()
	alive := c.Nodes[0]
	if alive == leader {
		alive = c.Nodes[2]
	}
	alive.wait("another leader", func() bool { return c.Leader("q") != leader })
	_, ch = connect(t, alive.URL)
	if _, ok, err := ch.Get("q", true); !ok || err != nil {
		t.Errorf("nothing in the queue without its old leader: %v", err)
	}
	leader.Restart()
	alive.wait("three nodes again", func() bool { return c.Running() == 3 })
}
