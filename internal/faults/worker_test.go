//go:build unix

package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"github.com/gelery/gelery/backends"
	_ "github.com/gelery/gelery/backends/redis"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/rabbitmq"
	_ "github.com/gelery/gelery/transport/redis"
	"github.com/gelery/gelery/worker"
)

const (
	slots    = 4
	prefetch = 8 // held in all: those running and those waiting

	priorityLists = 4 // of a queue on Redis, each watched by a connection of its own
)

// setup is what a worker process is told.
type setup struct {
	Broker, Backend  string
	Queue, QueueType string
	Ledger           string
	Options          map[string]any // of the transport
	Slots, Prefetch  int
	StopTimeout      time.Duration
	TimeLimit        time.Duration
	MaxDeliveries    int
	Pool             string
	MemoryLimit      int64     // of a child
	Kill             killPoint // where it kills itself
	KillAt           int       // the how manieth time it comes there
}

const setupVariable = "GELERY_FAULTS_WORKER"

// TestMain makes this binary its own worker process: started with GELERY_FAULTS_WORKER it runs tasks until it is killed.
func TestMain(m *testing.M) {
	logging.Disable() // go-redis' own
	if text := os.Getenv(setupVariable); text != "" {
		var s setup
		err := json.Unmarshal([]byte(text), &s)
		if err == nil {
			err = s.run()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Most of a fault is waiting, for leases above all: as many at once as there are cores would take three times as long.
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		_ = flag.Set("test.parallel", "6")
	}
	os.Exit(m.Run())
}

// run is the worker process. SIGTERM stops it warm.
func (s setup) run() error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	config := task.Config{Broker: s.Broker, Backend: s.Backend, Queue: s.Queue, QueueType: s.QueueType, TransportOptions: s.Options,
		Logger: log, AcceptContent: []string{"json", "msgpack", "yaml"}}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	client, err := task.Dial(ctx, config)
	if err != nil {
		return err
	}
	if s.Kill != "" {
		d := &deadly{Transport: client.Transport(), point: s.Kill, at: int64(s.KillAt)}
		backend := client.Backend()
		if counter, ok := backend.(backends.ChordCounter); ok {
			backend = &deadlyBackend{backend, counter, backend.(backends.Claimer), d}
		}
		client, err = task.NewClient(d, backend, config)
		if err != nil {
			return err
		}
	}
	mux := worker.NewMux()
	register(mux, client, Ledger{s.Ledger})
	w, err := worker.New(client, mux, worker.Config{Concurrency: s.Slots, PrefetchMultiplier: s.Prefetch / s.Slots, StopTimeout: s.StopTimeout,
		TimeLimit: s.TimeLimit, MaxDeliveries: s.MaxDeliveries, Pool: s.Pool, MemoryLimitPerChild: s.MemoryLimit})
	if err != nil {
		return err
	}
	go func() {
		<-w.Consuming()
		_, _ = os.Stdout.WriteString("consuming\n")
	}()
	if worker.IsChild() {
		return w.Run(ctx)
	}
	// A parent that dies closes standard input: no worker outlives its test.
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	return w.Run(ctx)
}

// process is a worker process of a test.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.Closer
	log   *tail
	ended chan struct{} // closed when it is gone
	err   error
}

// start starts a worker process and waits until it consumes. Before is put in front of the command, for limits.
func (s setup) start(t testing.TB, before ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	args := append(before, exe)
	p := &process{t: t, cmd: exec.Command(args[0], args[1:]...), log: &tail{}, ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), setupVariable+"="+string(text))
	p.cmd.Stderr = p.log
	p.stdin, err = p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan bool, 1)
	go func() {
		s := bufio.NewScanner(out)
		ready <- s.Scan() && s.Text() == "consuming"
		_, _ = io.Copy(io.Discard, out)
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(p.kill)
	select {
	case ok := <-ready:
		if !ok {
			p.kill()
			t.Fatalf("the worker did not start: %s", p.log)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("the worker did not start in 30 s: %s", p.log)
	}
	return p
}

// freeze stops the process (SIGSTOP) and returns when each of its threads stands still: the signal alone is only a
// request.
func (p *process) freeze() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
	if runtime.GOOS != "linux" {
		return // nowhere to look
	}
	ctx := deadlineOf(p.t, 30*time.Second)
	for !p.frozen() {
		if ctx.Err() != nil {
			p.t.Fatal("the worker does not stand still")
		}
	}
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("%v: %v", sig, err)
	}
}

// frozen reads the states of all threads from Linux' /proc.
func (p *process) frozen() bool {
	p.t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		p.t.Fatalf("no threads of process %d in /proc: %v", p.cmd.Process.Pid, err)
	}
	for _, name := range threads {
		stat, err := os.ReadFile(name)
		if err != nil {
			return false // it ended meanwhile; look again
		}
		// The state follows the program's name, which may hold anything, in parentheses.
		if i := strings.LastIndexByte(string(stat), ')'); i < 0 || !strings.HasPrefix(string(stat[i:]), ") T") {
			return false
		}
	}
	return true
}

// kill ends the process as nothing can prevent.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// stop ends it warm and returns its error.
func (p *process) stop() error {
	_ = p.stdin.Close()
	return p.wait(2 * recovery)
}

// wait waits for the end of the process, and returns its error.
func (p *process) wait(limit time.Duration) error {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.err
	case <-time.After(limit):
		p.kill()
		return fmt.Errorf("it did not end within %v and was killed", limit)
	}
}

// alive tells whether the process is still there.
func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// tail keeps the beginning of what a process wrote, where a crash says its reason, and the end.
type tail struct {
	mu        sync.Mutex
	head, buf []byte
}

func (l *tail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(b), 4<<10-len(l.head))
	l.head, l.buf = append(l.head, b[:n]...), append(l.buf, b[n:]...)
	if n := len(l.buf); n > 8<<10 {
		l.buf = l.buf[n-8<<10:]
	}
	return len(b), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(string(l.head) + string(l.buf))
}

func deadlineOf(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
