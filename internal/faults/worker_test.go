package faults

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

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

// note is the task of these tests: it notes its run in the ledger, then takes a moment.
var note = task.Define[noteArgs, task.NoResult]("faults.note")

type noteArgs struct {
	Milliseconds int `task:"ms"`
}

// TestMain makes this binary its own worker process: started with GELERY_FAULTS_BROKER it runs tasks until it is killed.
func TestMain(m *testing.M) {
	if broker := os.Getenv("GELERY_FAULTS_BROKER"); broker != "" {
		os.Exit(runWorker(broker, Ledger{os.Getenv("GELERY_FAULTS_LEDGER")}))
	}
	os.Exit(m.Run())
}

func runWorker(broker string, ledger Ledger) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	config := task.Config{Broker: broker, Backend: broker, Logger: log, AcceptContent: []string{"json", "msgpack", "yaml"}}
	if queue := os.Getenv(queueVariable); queue != "" { // RabbitMQ, which keeps no results
		config.Backend, config.Queue, config.QueueType = "", queue, os.Getenv(queueTypeVariable)
	}
	if seconds, err := strconv.ParseFloat(os.Getenv("GELERY_FAULTS_VISIBILITY"), 64); err == nil {
		config.TransportOptions = map[string]any{"visibility_timeout": seconds}
	}
	client, err := task.Dial(context.Background(), config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	mux := worker.NewMux()
	worker.Handle(mux, note, func(ctx context.Context, a noteArgs) (task.NoResult, error) {
		info, _ := task.FromContext(ctx)
		if err := ledger.Append(info.ID, strconv.Itoa(os.Getpid())); err != nil {
			return task.NoResult{}, err
		}
		<-time.After(time.Duration(a.Milliseconds) * time.Millisecond) // the work
		return task.NoResult{}, nil
	})
	worker.Handle(mux, state, func(context.Context, task.NoArgs) (task.NoResult, error) {
		return task.NoResult{}, ledger.beside().Append(resources())
	})
	if path := os.Getenv("GELERY_FAULTS_RECEIVED"); path != "" {
		mux.Hook(worker.Hooks{Received: func(_ context.Context, e worker.TaskReceived) { _ = Ledger{path}.Append(e.ID) }})
	}
	w, err := worker.New(client, mux, worker.Config{Concurrency: slots, PrefetchMultiplier: prefetch / slots})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() {
		<-w.Consuming()
		_, _ = os.Stdout.WriteString("consuming\n")
	}()
	// A parent that dies closes standard input: no worker outlives its test.
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if err := w.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// process is a worker process of a test.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.Closer
	log   *tail
	once  sync.Once
	err   error
}

// startWorker starts a worker process and waits until it consumes. Before is put in front of the command, for limits.
func startWorker(t testing.TB, broker string, ledger Ledger, before ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(before, exe)
	p := &process{t: t, cmd: exec.Command(args[0], args[1:]...), log: &tail{}}
	p.cmd.Env = append(os.Environ(), "GELERY_FAULTS_BROKER="+broker, "GELERY_FAULTS_LEDGER="+ledger.Path)
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
	t.Cleanup(func() { p.kill() })
	ready := make(chan bool, 1)
	go func() {
		s := bufio.NewScanner(out)
		ready <- s.Scan() && s.Text() == "consuming"
		_, _ = io.Copy(io.Discard, out)
	}()
	select {
	case ok := <-ready:
		if !ok {
			p.kill()
			t.Fatalf("the worker did not start: %s", p.log)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("the worker did not start in 20 s: %s", p.log)
	}
	return p
}

// freeze stops the process (SIGSTOP) and returns when each of its threads stands still: the signal alone is only a
// request.
func (p *process) freeze() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		p.t.Fatalf("SIGSTOP: %v", err)
	}
	if runtime.GOOS != "linux" {
		return // nowhere to look
	}
	ctx := deadlineOf(p.t, 20*time.Second)
	for !p.frozen() {
		if ctx.Err() != nil {
			p.t.Fatal("the worker does not stand still")
		}
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
	p.wait()
}

// stop ends it warm and returns its error.
func (p *process) stop() error {
	_ = p.stdin.Close()
	p.wait()
	return p.err
}

func (p *process) wait() { p.once.Do(func() { p.err = p.cmd.Wait() }) }

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
