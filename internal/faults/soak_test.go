//go:build unix

package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/interop"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// What TestSoak sends, and who works.
const (
	soakRate       = 500                      // tasks a second
	soakEvery      = 25                       // one in so many is not due for a second or two
	soakNotDue     = 2 * soakRate / soakEvery // at once
	soakVisibility = 20 * time.Second
	soakWorkers    = 3 // Go workers; the last one is never killed, so that its memory can be watched
)

// server is a broker to break.
type server interface {
	Kill()
	Restart()
	Freeze()
	Thaw()
}

// soak is a queue that Go and Python workers share while everything breaks.
type soak struct {
	*scene
	server server
	redis  *testservice.RedisServer    // the same, where it is one
	writes *appendOnly                 // what it has written
	rabbit *testservice.RabbitMQServer // likewise
	cut    func()                      // closes all connections
	random *rand.Rand

	mixed   bool             // with a Python worker
	celery  *interop.Process // that
	workers []*process
	faults  map[string]int

	brokerKills int
	pythonRisks int // faults at which the Python worker may lose what it has just taken
}

// TestSoak breaks something every few seconds while 500 tasks a second run on Go and Python workers, and accounts for every
// one. Its time is that of GELERY_SOAK ("10m"), ten seconds without. On Redis it runs a second time with Go workers alone,
// where no task at all may be lost. GELERY_SOAK_PYTHON=0 has Go workers alone on both brokers.
func TestSoak(t *testing.T) {
	mixed := os.Getenv("GELERY_SOAK_PYTHON") != "0"
	t.Run("redis", func(t *testing.T) { soakRedis(t).run(soakTime(t), mixed) })
	if mixed {
		t.Run("redis, Go alone", func(t *testing.T) { soakRedis(t).run(soakTime(t), false) })
	}
	t.Run("rabbitmq", func(t *testing.T) { soakRabbitMQ(t).run(soakTime(t), mixed) })
}

func soakTime(t *testing.T) time.Duration {
	text := os.Getenv("GELERY_SOAK")
	if text == "" {
		return 10 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("GELERY_SOAK: %v", err)
	}
	return d
}

func soakRedis(t *testing.T) *soak {
	dir := t.TempDir()
	server := testservice.StartRedisIn(t, dir, "--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")
	o, err := goredis.ParseURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	rdb := goredis.NewClient(o)
	t.Cleanup(func() { _ = rdb.Close() })
	keepsParts(t, rdb)
	s := newSoak(t, setup{Broker: server.URL, Queue: "soak",
		// Whoever sweeps counts by his own timeout, and in the end only Go workers are left.
		Options: map[string]any{"visibility_timeout": soakVisibility.Seconds()}})
	s.server, s.redis, s.writes = server, server, newAppendOnly(dir, "soak")
	s.cut = func() { rdb.Do(context.Background(), "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") }
	s.depth = func() (waiting, held int) {
		ctx := context.Background()
		for _, list := range []string{"soak", "soak\x06\x163", "soak\x06\x166", "soak\x06\x169"} {
			waiting += int(rdb.LLen(ctx, list).Val())
		}
		return waiting, int(rdb.HLen(ctx, "unacked").Val())
	}
	return s
}

func soakRabbitMQ(t *testing.T) *soak {
	server := testservice.StartRabbitMQ(t)
	s := newSoak(t, setup{Broker: server.URL, Queue: "soak", QueueType: "classic"})
	s.server, s.rabbit = server, server
	s.cut = func() { server.CloseConnections() }
	s.depth = func() (waiting, held int) { return server.Depth("soak") }
	return s
}

// newSoak connects a client.
func newSoak(t *testing.T, told setup) *soak {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	s := &soak{faults: map[string]int{}, random: rand.New(rand.NewPCG(seed, 0)), scene: newScene(t, told, told.Broker, nil)}
	return s
}

// run breaks things for a time, lets everything heal, and draws up the account.
func (s *soak) run(length time.Duration, mixed bool) {
	s.mixed = mixed
	s.begin()
	ctx, cancel := context.WithTimeout(s.Context(), length)
	defer cancel()
	var producer sync.WaitGroup
	producer.Go(func() { s.produce(ctx) })
	if s.writes != nil {
		following, stop := context.WithCancel(s.Context())
		var follower sync.WaitGroup
		follower.Go(func() { s.writes.follow(following) })
		defer follower.Wait()
		defer stop()
	}
	var memory []int64
	watch := time.NewTicker(max(length/20, time.Second))
	defer watch.Stop()
	pause := form(1500*time.Millisecond, 5*time.Second)
	if length >= time.Minute {
		pause = 5 * time.Second
	}
	for next := time.After(pause); ctx.Err() == nil; {
		select {
		case <-next:
			s.breakSomething(ctx)
			next = time.After(pause + rand.N(3*pause)) // every 5 to 20 s
		case <-watch.C:
			memory = append(memory, rss(s.TB, s.workers[soakWorkers-1].cmd.Process.Pid))
		case <-ctx.Done():
		}
	}
	producer.Wait()
	recovered := s.heal()
	s.account(length, recovered, memory)
}

// begin starts the workers.
func (s *soak) begin() {
	for range soakWorkers {
		s.workers = append(s.workers, s.worker())
	}
	if s.mixed {
		s.celery = s.python(s.setup.Queue, soakVisibility)
	}
}

// produce sends the tasks, ten times a second as one batch.
func (s *soak) produce(ctx context.Context) {
	ticker := time.NewTicker(time.Second / 10)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		calls := make([]task.Call, soakRate/10)
		ids := make([]string, len(calls))
		for i := range calls {
			ids[i] = protocol.NewID()
			options := []task.SendOption{task.ID(ids[i])}
			if i%soakEvery == 0 {
				options = append(options, task.Countdown(time.Duration(1+i/soakEvery)*time.Second))
			}
			calls[i] = note.Call(noteArgs{Milliseconds: i % 10}, options...)
		}
		_, err := s.client.SendBatch(s.Context(), calls)
		s.mu.Lock()
		for _, id := range ids {
			var publish *transport.PublishError
			switch {
			case err == nil:
				s.accepted[id] = true
			case errors.As(err, &publish) && !publish.InDoubt:
				s.refused = append(s.refused, err)
			default:
				s.doubtful[id] = true
			}
		}
		s.mu.Unlock()
	}
}

// breakSomething does one thing that no system should mind.
func (s *soak) breakSomething(ctx context.Context) {
	victim := s.random.IntN(soakWorkers - 1)
	moment := time.Duration(1+s.random.IntN(4)) * time.Second
	var name string
	switch n := s.random.IntN(8); n {
	case 0, 1, 2:
		name = "Go worker killed"
		s.workers[victim].kill()
		s.workers[victim] = s.worker()
	case 3:
		name = "Go worker frozen"
		s.workers[victim].freeze()
		wait(ctx, 5*moment) // at times longer than its lease
		_ = s.workers[victim].cmd.Process.Signal(syscall.SIGCONT)
	case 4:
		name = "Go worker stopped"
		if err := s.workers[victim].stop(); err != nil {
			s.Errorf("warm stop: %v: %s", err, s.workers[victim].log)
		}
		s.workers[victim] = s.worker()
	case 5:
		name = "connections closed"
		s.pythonRisks++
		s.cut()
	case 6:
		name = "broker frozen"
		s.pythonRisks++
		s.server.Freeze()
		wait(ctx, moment)
		s.server.Thaw()
	case 7:
		name = "broker killed"
		s.brokerKills++
		s.pythonRisks++
		if s.rabbit != nil {
			s.rabbit.SyncQueues() // of the delay queues, which the first task that is not due has just declared
		} else {
			s.redis.SyncAppendOnly() // or a slow disk is why accepted tasks are gone
		}
		s.server.Kill()
		wait(ctx, moment/2)
		s.server.Restart()
		if s.mixed && s.random.IntN(2) == 0 {
			name += ", Python restarted"
			s.endPython()
			s.celery = s.python(s.setup.Queue, soakVisibility)
		}
	}
	s.faults[name]++
}

// wait is a time that is a part of a fault.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// heal waits until all that the broker has is done, and returns how long that took. A Python worker that has lost a
// connection keeps what it held from all others until its visibility timeout, or until it ends: so it ends first. An empty
// queue of RabbitMQ says little: what is not due rests elsewhere, and what a quorum queue counts lags behind. So there all
// that was accepted must have run as well, which beside Python on Redis is too much to ask.
func (s *soak) heal() time.Duration {
	if s.mixed {
		s.endPython()
	}
	begun := time.Now()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for limit := begun.Add(2*recovery + soakVisibility); ; <-ticker.C {
		waiting, held := s.depth()
		if waiting == 0 && held == 0 && (s.rabbit == nil || s.missing() == 0) {
			return time.Since(begun)
		}
		if time.Now().After(limit) {
			if s.rabbit != nil {
				s.Log(s.rabbit.Ctl("list_queues", "name", "type", "messages_ready", "messages_unacknowledged", "consumers", "state"))
				s.Log(s.rabbit.Ctl("list_channels", "connection", "consumer_count", "messages_unacknowledged", "messages_unconfirmed"))
			}
			s.Errorf("%v after the end %d wait and %d are held", time.Since(begun), waiting, held)
			return time.Since(begun)
		}
	}
}

// missing counts what was accepted and has not run.
func (s *soak) missing() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Balance(s.accepted, s.ledger.Counts(s)).Lost
}

// endPython stops the Python worker warm. At times it does not end; then it is killed, which says nothing about Gelery.
func (s *soak) endPython() {
	_ = s.celery.Signal(syscall.SIGTERM)
	select {
	case <-s.celery.Exited():
	case <-time.After(20 * time.Second):
		s.Log("the Python worker does not end after SIGTERM and is killed")
		s.pythonRisks++ // which is one more fault at which it may lose what it has popped
		s.celery.Kill()
	}
}

// account: nothing is lost, extra runs are within the bound, and the memory of the worker that lived all the time has not
// grown. Beside a Python worker on Redis some may be gone: kombu loses what it has popped and not yet entered in unacked
// when its connection ends, also what a Go worker had before (a delay, a stop and a death give a message back). That is the
// only excuse: what Redis has written must prove it of each, and at each fault that takes Python's connection it can be no more
// than Python may have in hand. The run with Go workers alone must lose nothing.
func (s *soak) account(length, recovered time.Duration, memory []int64) {
	for i, w := range s.workers {
		if err := w.stop(); err != nil {
			s.Errorf("warm stop of worker %d: %v: %s", i, err, w.log)
		}
	}
	parked := s.parked()
	s.mu.Lock()
	defer s.mu.Unlock()
	runs := s.ledger.Counts(s)
	doubtfulRan := 0
	for id := range s.doubtful {
		if runs[id] > 0 {
			doubtfulRan++
			delete(runs, id)
		}
	}
	byPython := s.lostByPython(runs)
	faults := 0
	for _, n := range s.faults {
		faults += n
	}
	bound, mayLose := faults*soakWorkers*prefetch, 0
	if s.mixed {
		// Python takes what is not due beyond its prefetch, and runs it after a lost connection as well as whoever gets it then.
		bound += faults*pythonRisk + s.pythonRisks*soakNotDue
		if s.writes != nil {
			mayLose = s.pythonRisks * pythonRisk
		}
	}
	if s.setup.QueueType != "" {
		bound += s.brokerKills * soakRate / 2 // a queue writes acknowledgements when it has time; what it has not is handed out again
	}
	a := Balance(s.accepted, runs)
	fmt.Fprintf(os.Stderr, "soak of %v on %s: %v, in doubt %d (of them run %d), refused %d, parked %d, popped by Python and not recorded %d of at most %d; "+
		"faults %d %v; bound on extra runs %d; done %v after the last; memory of the worker that lived: %s\n", length, s.on(), a,
		len(s.doubtful), doubtfulRan, len(s.refused), parked, byPython, mayLose, faults, s.faults, bound, recovered.Round(time.Millisecond), megabytes(memory))
	if a.Lost != 0 || a.Ghosts != 0 || a.Extra > bound || parked != 0 {
		s.Errorf("%v, parked %d; missing %v", a, parked, a.Missing)
	}
	if byPython > mayLose {
		s.Errorf("Python has popped %d tasks and not recorded them; expected at most %d", byPython, mayLose)
	}
	s.flat(length, memory)
}

// lostByPython takes out of the account what a Python worker has popped and not recorded before it lost its connection, and returns
// how many that were. Of whatever else is lost on Redis it tells what became of its message.
func (s *soak) lostByPython(runs map[string]int) (n int) {
	if s.writes == nil {
		return 0
	}
	s.writes.read()
	if err := s.writes.failed(); err != nil {
		s.Errorf("what Redis has written: %v", err)
	}
	for id := range s.accepted {
		switch {
		case runs[id] > 0:
		case s.mixed && s.writes.poppedAlone(id):
			n++
			delete(s.accepted, id)
		default:
			s.Logf("lost: %s", s.writes.told(id))
		}
	}
	return n
}

// on tells where and with whom.
func (s *soak) on() string {
	broker, _, _ := strings.Cut(s.setup.Broker, ":")
	if s.mixed {
		return broker + ", Go and Python"
	}
	return broker + ", Go alone"
}

// flat: the memory of the last quarter is that of the second one, the first being that of the start. A run of seconds is
// all start.
func (s *soak) flat(length time.Duration, memory []int64) {
	n, most := len(memory), int64(4<<20)
	if n <= 8 {
		return
	}
	if length < time.Minute {
		most = 16 << 20
	}
	early, late := average(memory[n/4:n/2]), average(memory[n-n/4:])
	const between = 0.5 // of the whole time, from the middle of one quarter to that of the other
	slope := float64(late-early) / (1 << 20) / (between * length.Minutes()) * 10
	fmt.Fprintf(os.Stderr, "soak on %s: %.1f MB, then %.1f MB: %+.1f MB in 10 minutes\n", s.on(), float64(early)/(1<<20), float64(late)/(1<<20), slope)
	if late > early+most {
		s.Errorf("the worker that lived grew from %.1f MB to %.1f MB; expected at most %d more", float64(early)/(1<<20), float64(late)/(1<<20), most>>20)
	}
}

// parked counts what is in quarantine.
func (s *soak) parked() int {
	found, err := s.client.Transport().(transport.Inspector).Quarantined(s.Context(), "soak", 100)
	if err != nil {
		s.Errorf("quarantine: %v", err)
	}
	for _, q := range found {
		s.Logf("in quarantine: %s", q.Reason)
	}
	return len(found)
}

func average(values []int64) int64 {
	var sum int64
	for _, v := range values {
		sum += v
	}
	return sum / int64(len(values))
}

// megabytes shows at most ten of the values.
func megabytes(values []int64) string {
	var b strings.Builder
	for i := 0; i < len(values); i += max(1, len(values)/10) {
		fmt.Fprintf(&b, "%.1f ", float64(values[i])/(1<<20))
	}
	return b.String() + "MB"
}

// rss is a process's resident memory in bytes, 0 where there is no /proc.
func rss(t testing.TB, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
