//go:build unix

package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// form returns the value for the form of a fault that runs: GELERY_FAULTS_LONG=1 is as long as the promises say.
func form[T any](brief, full T) T {
	if os.Getenv("GELERY_FAULTS_LONG") == "1" {
		return full
	}
	return brief
}

// TestFaults does to a node of its own what would disturb others.
func TestFaults(t *testing.T) {
	server := testservice.StartRabbitMQ(t)
	before := openFiles()
	defer func() { // when the transports of all are closed
		if after := openFiles(); after > before {
			t.Errorf("%d files are open; before the faults %d", after, before)
		}
	}()
	t.Run("MemoryAlarm", func(t *testing.T) { memoryAlarm(t, server) })
	t.Run("TooLarge", func(t *testing.T) { tooLarge(t, server) })
	t.Run("Frozen", func(t *testing.T) { frozen(t, server) })
	t.Run("Restarted", func(t *testing.T) { restarted(t, server) })
}

// openFiles counts the open files of this process, on Linux.
func openFiles() int {
	files, _ := os.ReadDir("/proc/self/fd")
	return len(files)
}

// memoryAlarm: what is received can be acknowledged, publishing ends at its deadline and says why, Close does not wait.
func memoryAlarm(t *testing.T, server *testservice.RabbitMQServer) {
	r := newRig(t, server.URL, nil)
	q := transport.Queue{Name: "alarm"}
	c := r.consume(100, q)
	const n = 50
	for i := range n {
		r.send("alarm", fmt.Sprint(i))
	}
	server.SetMemoryAlarm(true)
	lifted := false
	defer func() {
		if !lifted {
			server.SetMemoryAlarm(false)
		}
	}()
	over := time.After(form(5*time.Second, 20*time.Second))

	err := r.refuses(time.Second, func(ctx context.Context) error { return r.publish(ctx, "alarm", "first") })
	if !errors.Is(err, transport.ErrBrokerFull) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "memory") {
		t.Errorf("publish: %v; expected ErrBrokerFull, the reason and the deadline", err)
	}
	doubted := err.InDoubt // it was written before the broker said that it is full
	err = r.refuses(500*time.Millisecond, func(ctx context.Context) error { return r.publish(ctx, "alarm", "second") })
	if !errors.Is(err, transport.ErrBrokerFull) || err.InDoubt {
		t.Errorf("publish while blocked: %v; expected ErrBrokerFull without doubt", err)
	}
	waiting := make(chan error, 1)
	go func() { waiting <- r.publish(r.within(patience), "alarm", "patient") }()

	for i := range n {
		if id := r.take(c, 1)[0]; id != fmt.Sprint(i) {
			t.Errorf("received %s; expected %d", id, i)
		}
	}
	other := newLooseRig(t, server.URL, nil)
	if e := other.refuses(time.Second, func(ctx context.Context) error { return other.publish(ctx, "alarm", "third") }); !errors.Is(e, transport.ErrBrokerFull) {
		t.Errorf("publish: %v; expected ErrBrokerFull", e)
	}
	closing := time.Now()
	if err := other.tr.Close(other.within(patience)); err != nil {
		t.Errorf("close: %v", err)
	}
	took := time.Since(closing)
	t.Logf("closed in %v", took)
	if took > slack*2*time.Second {
		t.Errorf("Close took %v", took)
	}
	<-over
	server.SetMemoryAlarm(false)
	lifted = true
	start := time.Now()
	if err := coming(t, waiting); err != nil {
		t.Errorf("the call that waited: %v", err)
	}
	t.Logf("publishing went on %v after the alarm", time.Since(start))
	if took := time.Since(start); took > slack*2*time.Second {
		t.Errorf("publishing went on %v after the alarm", took)
	}
	want := map[string]bool{"patient": true, "first": doubted, "third": true}
	for id := r.take(c, 1)[0]; id != "patient"; id = r.take(c, 1)[0] {
		if !want[id] {
			t.Errorf("received %q, which was in no doubt when its publish failed", id)
		}
	}
}

// frozen: a broker that stands still is noticed within two heartbeats, and calls end on time.
func frozen(t *testing.T, server *testservice.RabbitMQServer) {
	heartbeat := form(1, 5)
	r := newRig(t, server.URL, map[string]any{"heartbeat": float64(heartbeat), "connect_timeout": 1.0})
	c := r.consume(10, transport.Queue{Name: "frozen"})
	r.send("frozen", "held", "before")
	held := r.receive(c, 1)
	if id := r.take(c, 1)[0]; id != "before" {
		t.Errorf("received %s", id)
	}
	server.Freeze()
	thawed := false
	defer func() {
		if !thawed {
			server.Thaw()
		}
	}()
	start := time.Now()
	over := time.After(form(4*time.Second, 30*time.Second))
	r.refuses(500*time.Millisecond, func(ctx context.Context) error { return r.publish(ctx, "frozen", "doubtful") })
	limit := 2*time.Duration(heartbeat)*time.Second + time.Second
	for _, connection := range []string{"publish", "consume"} {
		line := r.log.await(t, slack*limit, "connection to RabbitMQ lost", "connection="+connection)
		t.Logf("%s connection: noticed after %v: %s", connection, time.Since(start), line)
	}
	if noticed := time.Since(start); noticed > limit*3/2 {
		t.Errorf("noticed after %v; expected two heartbeats and a second, %v", noticed, limit)
	}
	e := r.refuses(500*time.Millisecond, func(ctx context.Context) error { return r.publish(ctx, "frozen", "never") })
	if e.InDoubt || !errors.Is(e, context.DeadlineExceeded) {
		t.Errorf("publish without a connection: %v; expected no doubt and the deadline", e)
	}
	<-over
	server.Thaw()
	thawed = true
	back := time.Now()
	r.send("frozen", "after")
	t.Logf("publishing %v after the thaw", time.Since(back))
	// What was held when the connection was lost comes again and takes the place of the old delivery.
	ids := map[string]bool{}
	for !ids["after"] {
		ids[r.take(c, 1)[0]] = true
	}
	t.Logf("receiving %v after the thaw", time.Since(back))
	if took := time.Since(back); took > slack*5*time.Second {
		t.Errorf("service went on %v after the thaw", took)
	}
	if ids["never"] || ids["held"] {
		t.Errorf("received %v; expected neither what was in no doubt nor what is in hand", ids)
	}
	if lost := r.settle(c, transport.Ack, held...); lost > 0 {
		t.Log("the broker had not given the held message back yet")
	}
	eventually(t, func() string {
		if ready, unacked := server.Depth("frozen"); ready != 0 || unacked != 0 {
			return fmt.Sprintf("%d wait and %d are unacked", ready, unacked)
		}
		return ""
	})
}

// restarted kills the node while calls are under way, with deadlines longer and shorter than it is away.
func restarted(t *testing.T, server *testservice.RabbitMQServer) {
	r := newRig(t, server.URL, nil)
	queues := map[string]transport.Queue{
		"r-classic": {Name: "r-classic"},
		"r-quorum":  {Name: "r-quorum", Arguments: map[string]any{"x-queue-type": "quorum"}},
	}
	var mu sync.Mutex
	sent := map[string]map[string]bool{"r-classic": {}, "r-quorum": {}} // by queue
	var producers sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for name, q := range queues {
		r.declare(q)
		for p := range 4 {
			producers.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					id := fmt.Sprintf("%d-%d", p, i)
					if err := r.publish(r.within(patience), name, id); err != nil {
						t.Errorf("a call with a deadline of %v: %v", patience, err)
						return
					}
					mu.Lock()
					sent[name][id] = true
					mu.Unlock()
				}
			})
		}
	}
	<-time.After(500 * time.Millisecond) // of load
	server.SyncQueues()
	server.Kill()
	e := r.refuses(time.Second, func(ctx context.Context) error { return r.publish(ctx, "r-classic", "never") })
	if e.InDoubt || !errors.Is(e, context.DeadlineExceeded) {
		t.Errorf("publish without a broker: %v; expected no doubt and the deadline", e)
	}
	server.Restart()
	back := time.Now()
	r.send("r-classic", "last")
	t.Logf("publishing %v after the broker's return", time.Since(back))
	stop()
	producers.Wait()
	for name, q := range queues {
		c := r.consume(1000, q)
		arrived := map[string]int{}
		for missing := len(sent[name]); missing > 0; {
			ds, err := c.Receive(r.within(patience), 1000)
			if err != nil {
				t.Fatalf("%s: %d confirmed messages are missing: %v", name, missing, err)
			}
			for i := range ds {
				id := ds[i].Message.Headers.ID
				if arrived[id]++; arrived[id] == 1 && sent[name][id] {
					missing--
				}
			}
			r.settle(c, transport.Ack, ds...)
		}
		twice := 0
		for id, n := range arrived {
			if n > 1 {
				twice++
			}
			if id == "never" {
				t.Error("what was in no doubt has arrived")
			}
		}
		t.Logf("%s: %d confirmed, all arrived, %d twice", name, len(sent[name]), twice)
	}
}
