//go:build unix

package faults

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

// TestRabbitMQ breaks one node again and again. GELERY_FAULTS_LONG=1 does it for as long as the promises say.
func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	server := testservice.StartRabbitMQ(t)
	t.Run("ConnectionsClosed", func(t *testing.T) { connectionsClosed(t, server) })
	t.Run("F49ConsumerTimeout", func(t *testing.T) { consumerTimeout(t, server) })
}

// TestF43BrokerKilled kills the node under load and has it down for three seconds.
func TestF43BrokerKilled(t *testing.T) {
	t.Parallel()
	server := testservice.StartRabbitMQ(t)
	kinds := []string{"classic", "quorum"}
	var scenes []*scene
	var workers []*process
	var stops []func()
	for _, kind := range kinds {
		s := onRabbitMQ(t, server, server.URL, "killed-"+kind, kind)
		scenes, workers = append(scenes, s), append(workers, s.worker())
		stops = append(stops, s.stream(4, 50, milliseconds(5)))
		<-s.grown()
	}
	rounds, recovered := form(1, 10), make([]time.Duration, len(kinds))
	for range rounds {
		<-time.After(time.Second) // of load
		server.SyncQueues()
		server.Kill()
		down := time.After(3 * time.Second)
		callWhileDown(t, scenes[0])
		<-down
		var resumed []<-chan time.Time
		for _, s := range scenes {
			resumed = append(resumed, s.grown())
		}
		server.Restart()
		back := time.Now()
		for i := range scenes {
			recovered[i] = max(recovered[i], scenes[i].resumed(resumed[i], back, comeback))
		}
	}
	for i, s := range scenes {
		stops[i]()
		took := s.settled(recovery)
		if err := workers[i].stop(); err != nil {
			t.Errorf("warm stop: %v: %s", err, workers[i].log)
		}
		s.account(outcome{what: "broker killed, back after 3 s", faults: rounds, extra: rounds * prefetch, recovery: recovered[i], limit: comeback})
		if n := len(s.doubtful) + len(s.refused); n > rounds {
			t.Errorf("%s: %d calls failed; expected only those with a deadline before the broker's return", kinds[i], n)
		}
		t.Logf("%s: everything done %v after the last Send", kinds[i], took)
	}
}

// callWhileDown sends while there is no broker, with a deadline before its return: the call ends on time. Those of the
// streams, which have longer ones, are answered by the next broker.
func callWhileDown(t *testing.T, s *scene) {
	t.Helper()
	const short = time.Second
	ctx, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	start := time.Now()
	_, err := s.send(ctx, 0)
	took := time.Since(start)
	var publish *transport.PublishError
	if !errors.As(err, &publish) || publish.InDoubt || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("send while the broker is down: %v; expected a PublishError without doubt, for the deadline", err)
	}
	if took > slack*short {
		t.Errorf("a call with a deadline of %v took %v", short, took)
	}
	t.Logf("a call of %v ended after %v: %v", short, took, err)
}

// connectionsClosed closes every connection twice a second, while a task takes up to two.
func connectionsClosed(t *testing.T, server *testservice.RabbitMQServer) {
	s := onRabbitMQ(t, server, server.URL, "closed", "classic")
	w := s.worker()
	before, filesBefore := s.has()
	lengths := []int{50, 2000, 100, 500, 50, 1000, 200, 50}
	early := map[string]bool{} // sent before the fault: nobody sends these twice
	for i := range form(40, 240) {
		id, err := s.send(deadlineOf(t, 20*time.Second), lengths[i%len(lengths)])
		if err != nil {
			t.Fatal(err)
		}
		early[id] = true
	}
	doneBefore := len(s.ledger.Counts(t))
	stop := s.stream(1, 3, func(i int) int { return lengths[i%len(lengths)] })
	closings := closeAgainAndAgain(server, form(10*time.Second, time.Minute))
	progress := len(s.ledger.Counts(t)) - doneBefore
	stop()
	took := s.settled(recovery + time.Duration(len(s.accepted))*time.Second/slots)
	after, filesAfter := s.has()
	if err := w.stop(); err != nil {
		t.Errorf("warm stop: %v: %s", err, w.log)
	}
	s.account(outcome{what: "all connections closed every 500 ms", faults: closings, extra: closings * prefetch})
	again := Balance(early, only(s.ledger.Counts(t), early)).Extra
	fmt.Fprintf(os.Stderr, "connections closed: extra runs %d of tasks that were there before the fault\n", again)
	if again > closings*slots {
		t.Errorf("%d extra runs of tasks that were there before the fault; an acknowledgement on its way is at most one a slot and closing", again)
	}
	fmt.Fprintf(os.Stderr, "connections closed: %d tasks begun during the fault, the rest done %v after it; goroutines %d before, %d after; "+
		"files %d before, %d after\n", progress, took.Round(10*time.Millisecond), before, after, filesBefore, filesAfter)
	if progress < closings {
		t.Errorf("%d tasks were begun while connections were closed %d times; expected at least as many", progress, closings)
	}
	// A few may come and go with the moment; a leak would be one or more for each closing.
	if after > before+closings/2 || filesAfter > filesBefore+2 {
		t.Errorf("the worker has %d goroutines and %d files; before the fault %d and %d", after, filesAfter, before, filesBefore)
	}
	if n := logged(server, "unknown delivery tag"); n != "0" {
		t.Errorf("the broker has seen %s acknowledgements of deliveries it did not know", n)
	}
}

// closeAgainAndAgain closes all connections every half second and tells how often there were any.
func closeAgainAndAgain(server *testservice.RabbitMQServer, during time.Duration) (closings int) {
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	end := time.After(during)
	for {
		select {
		case <-ticker.C:
			if server.CloseConnections() > 0 {
				closings++
			}
		case <-end:
			return closings
		}
	}
}

// only is the part of counts that is about some tasks.
func only(counts map[string]int, ids map[string]bool) map[string]int {
	part := map[string]int{}
	for id, n := range counts {
		if ids[id] {
			part[id] = n
		}
	}
	return part
}

// consumerTimeout has a task run for longer than the broker lets a delivery stay unacknowledged.
func consumerTimeout(t *testing.T, server *testservice.RabbitMQServer) {
	server.SetConsumerTimeout(5 * time.Second)
	defer server.SetConsumerTimeout(0)
	s := onRabbitMQ(t, server, server.URL, "timeout", "classic")
	w := s.worker()
	length := form(13*time.Second, 20*time.Second)
	id, err := s.send(deadlineOf(t, 20*time.Second), int(length.Milliseconds()))
	if err != nil {
		t.Fatal(err)
	}
	stop := s.stream(1, 20, milliseconds(5))
	<-time.After(length + time.Second)
	stop()
	s.settled(recovery)
	if err := w.stop(); err != nil {
		t.Errorf("warm stop: %v: %s", err, w.log)
	}
	timeouts := strings.Count(w.log.String(), "consuming channel lost")
	s.account(outcome{what: "consumer_timeout", faults: timeouts, extra: timeouts * prefetch})
	if timeouts < 2 {
		t.Errorf("the channel was lost %d times; expected a task of %v to outlast two timeouts", timeouts, length)
	}
	if n := s.ledger.Counts(t)[id]; n != 1 {
		t.Errorf("the long task ran %d times; expected once, as its worker is the only one", n)
	}
}

// TestF56Cluster kills nodes of a cluster of three under load.
func TestF56Cluster(t *testing.T) {
	t.Parallel()
	cluster := testservice.StartRabbitMQCluster(t, 3)
	s := onRabbitMQ(t, cluster.Nodes[0], cluster.URL, "quorum", "quorum")
	w := s.worker()
	stop := s.stream(4, 50, milliseconds(2))
	<-s.grown()

	leader := cluster.Leader(s.setup.Queue)
	for _, n := range cluster.Nodes {
		n.SyncQueues()
	}
	s.gaps()
	<-time.After(time.Second)
	leader.Kill()
	<-time.After(form(4*time.Second, 20*time.Second))
	gap := s.longestGap()
	fmt.Fprintf(os.Stderr, "leader killed: longest gap in publishing %v\n", gap.Round(time.Millisecond))
	if gap > slack*2*time.Second {
		t.Errorf("nothing was accepted for %v; expected less than %v", gap, slack*2*time.Second)
	}

	second := cluster.Leader(s.setup.Queue)
	if second == leader {
		t.Fatal("the leader is on the node that was killed")
	}
	stop()
	s.depth = func() (waiting, held int) { return second.Depth(s.setup.Queue) }
	served := s.settled(recovery)
	t.Logf("everything done %v after the leader's death", served)
	second.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	start := time.Now()
	_, err := s.send(ctx, 0)
	t.Logf("without a majority, after %v: %v", time.Since(start), err)
	var publish *transport.PublishError
	if !errors.As(err, &publish) {
		t.Errorf("send without a majority: %v; expected a PublishError", err)
	}
	stop = s.stream(4, 50, milliseconds(2))
	grown := s.grown()
	second.Restart()
	back := s.resumed(grown, time.Now(), comeback)
	<-time.After(time.Second)
	stop()
	s.settled(recovery)
	if err := w.stop(); err != nil {
		t.Errorf("warm stop: %v: %s", err, w.log)
	}
	s.account(outcome{what: "cluster of three: leader killed, then a second node", faults: 2, extra: 2 * prefetch, recovery: back, limit: comeback})
}

// TestF44AppStopped stops the broker's application and starts it again, as an operator does, while its node runs on.
func TestF44AppStopped(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			appStopped(t, kind)
		})
	}
}

func appStopped(t *testing.T, kind string) {
	server := testservice.StartRabbitMQ(t)
	s := onRabbitMQ(t, server, server.URL, "app", kind)
	w := s.worker()
	stop := s.stream(4, 50, milliseconds(5))
	<-s.grown()
	long, err := s.send(deadlineOf(t, patient), int(form(6*time.Second, 12*time.Second).Milliseconds()))
	if err != nil {
		t.Fatal(err)
	}
	s.await(recovery, "the long task has begun", func() bool { return s.ledger.Counts(t)[long] == 1 })
	rounds, longest := form(1, 5), time.Duration(0)
	for range rounds {
		<-time.After(time.Second) // of load
		server.Ctl("stop_app")
		grown := s.grown()
		server.Ctl("start_app")
		longest = max(longest, s.resumed(grown, time.Now(), 3*time.Second))
	}
	stop()
	s.settled(recovery)
	stopped(t, w)
	s.account(outcome{what: "rabbitmqctl stop_app and start_app", faults: rounds, extra: rounds * prefetch, recovery: longest, limit: 3 * time.Second})
	if n := s.ledger.Counts(t)[long]; n != 1 {
		t.Errorf("the task that ran meanwhile has run %d times; expected once, as its worker is the only one", n)
	}
}

// TestF45BrokerFrozen has the broker stand still: it is noticed within two heartbeats, and calls end at their deadline.
func TestF45BrokerFrozen(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			brokerFrozen(t, kind)
		})
	}
}

func brokerFrozen(t *testing.T, kind string) {
	server := testservice.StartRabbitMQ(t)
	heartbeat := form(1, 5)
	s := onRabbitMQ(t, server, server.URL, "frozen", kind)
	w := s.worker(func(told *setup) { told.Options = map[string]any{"heartbeat": heartbeat} })
	stop := s.stream(4, 50, milliseconds(5))
	<-s.grown()
	<-time.After(time.Second) // of load
	server.Freeze()
	thaw := sync.OnceFunc(server.Thaw)
	defer thaw()
	start := time.Now()
	over := time.After(form(5*time.Second, 30*time.Second))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	_, err := s.send(ctx, 0)
	cancel()
	var publish *transport.PublishError
	if took := time.Since(start); !errors.As(err, &publish) || took > slack*time.Second {
		t.Errorf("send to a frozen broker: %v after %v; expected a PublishError at its deadline of a second", err, took)
	}
	limit := 2 * time.Duration(heartbeat) * time.Second
	noticed := s.await(slack*limit+time.Second, "the worker notices", func() bool { return strings.Contains(w.log.String(), "connection to RabbitMQ lost") })
	t.Logf("noticed %v after the freeze", noticed+time.Since(start))
	<-over
	grown := s.grown()
	thaw()
	back := s.resumed(grown, time.Now(), comeback)
	stop()
	s.settled(recovery)
	stopped(t, w)
	s.account(outcome{what: fmt.Sprintf("broker frozen; noticed within two heartbeats of %d s", heartbeat), faults: 1, extra: prefetch, recovery: back, limit: comeback})
}
