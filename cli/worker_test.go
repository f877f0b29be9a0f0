package cli

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// process is the stock command as a process of its own.
func process(t *testing.T, args ...string) (cmd *exec.Cmd, output *transcript) {
	t.Helper()
	cmd = exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	output = newTranscript()
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd, output
}

// exitCode waits for the end of a process.
func exitCode(t *testing.T, cmd *exec.Cmd, output *transcript) int {
	t.Helper()
	watchdog := time.AfterFunc(testLimit, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	if !watchdog.Stop() {
		t.Fatalf("it did not end in %v; it said:\n%s", testLimit, output)
	}
	return cmd.ProcessState.ExitCode()
}

func send(t *testing.T, cmd *exec.Cmd, sig syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// TestStopBySignal sends real signals to a real process whose only task never ends by itself.
func TestStopBySignal(t *testing.T) {
	t.Parallel()
	broker := testservice.Redis(t)
	tests := []struct {
		name    string
		task    string
		args    string
		signals []syscall.Signal
		code    int
		want    string // of the output
		left    bool   // the task is back in its queue, not held
	}{
		{"SIGTERM waits for the task", "dev.sleep", "[0.2]", []syscall.Signal{syscall.SIGTERM}, 0, "warm stop (terminated)", false},
		{"SIGINT waits for the task", "dev.sleep", "[0.2]", []syscall.Signal{syscall.SIGINT}, 0, "warm stop (interrupt)", false},
		{"SIGINT after SIGTERM cancels it", "dev.sleep", "[3600]", []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}, 1, "stopped cold", true},
		{"a second SIGTERM does nothing", "dev.sleep", "[2]", []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, 0, "warm stop (terminated)", false},
		{"SIGQUIT cancels it", "dev.sleep", "[3600]", []syscall.Signal{syscall.SIGQUIT}, 0, "cold stop (quit)", true},
		{"who does not listen is left", "stubborn", "[]", []syscall.Signal{syscall.SIGQUIT}, 0, "stopped cold", true},
		{"a third signal ends at once", "stubborn", "[]", []syscall.Signal{syscall.SIGINT, syscall.SIGINT, syscall.SIGINT}, 1, "ended at once (interrupt)", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			queue := strings.ReplaceAll(tt.name, " ", "-")
			id := "id-" + queue
			cmd, output := process(t, "-b", broker, "--result-backend", broker, "worker", "--demo", "-Q", queue, "--track-started", "-n", "w@test")
			output.waitFor(t, `w@test ready\.\n`)
			command(t, 0, "-b", broker, "call", tt.task, "-a", tt.args, "-q", queue, "--task-id", id)
			awaitState(t, broker, id, "STARTED", "SUCCESS")
			for i, sig := range tt.signals {
				send(t, cmd, sig)
				if i+1 < len(tt.signals) {
					output.waitFor(t, []string{`warm stop`, `cold stop`}[i])
				}
			}
			if code := exitCode(t, cmd, output); code != tt.code || !strings.Contains(output.String(), tt.want) {
				t.Errorf("exit code %d, want %d; want %q in\n%s", code, tt.code, tt.want, output)
			}
			if !tt.left && tt.code == 0 {
				if got := command(t, 0, "--result-backend", broker, "result", id, "--timeout", "10"); got != strings.Trim(tt.args, "[]")+"\n" {
					t.Errorf("result %q of %s", got, tt.args)
				}
			}
			if left := strings.HasPrefix(command(t, 0, "-b", broker, "queues", "-Q", queue), queue+"\t1\t0\t"); left != tt.left {
				t.Errorf("back in its queue: %v, want %v", left, tt.left)
			}
		})
	}
}

// awaitState waits until a task has one of the states.
func awaitState(t *testing.T, backend, id string, states ...protocol.State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	client, err := task.Dial(ctx, task.Config{Broker: backend, Backend: backend})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close(ctx) }()
	for meta, err := range client.Result(id).Watch(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(states, meta.Status) {
			return
		}
	}
	t.Fatalf("task %s does not get into the states %v", id, states)
}

// TestClientCommandBySignal ends a wait without end.
func TestClientCommandBySignal(t *testing.T) {
	t.Parallel()
	broker := testservice.Redis(t)
	for sig, want := range map[syscall.Signal]int{syscall.SIGINT: exitInterrupted, syscall.SIGTERM: exitTerminated} {
		cmd, output := process(t, "-b", broker, "--result-backend", broker, "call", "nobody.has.it", "--wait", "-q", sig.String())
		awaitMessages(t, broker, sig.String())
		send(t, cmd, sig)
		if code := exitCode(t, cmd, output); code != want {
			t.Errorf("%v: exit code %d, want %d; it said\n%s", sig, code, want, output)
		}
	}
}

func awaitMessages(t *testing.T, broker, queue string) {
	t.Helper()
	limit := time.Now().Add(testLimit)
	for !strings.HasPrefix(command(t, 0, "-b", broker, "queues", "-Q", queue), queue+"\t1\t") {
		if time.Now().After(limit) {
			t.Fatalf("no message in %s", queue)
		}
	}
}

func TestWorkerBanner(t *testing.T) {
	t.Parallel()
	broker := testservice.Redis(t)
	broker = strings.Replace(broker, "://", "://default:SECRET@", 1) // Redis' own user, whom any password suits
	mux := worker.NewMux()
	mux.Func("mine", func() error { return nil })
	b := run{mux: mux, args: []string{"worker", "-b", broker, "-n", "w1@test", "-Q", "a,b", "-c", "3"}}.start(t)
	b.output.waitFor(t, `(?m)^w1@test  gelery .*\n\n\[config\]\n\.> transport:   redis://default:\*\*\*@127\.0\.0\.1:\d+/0\n`+
		`\.> results:     disabled\n\.> concurrency: 3 \(goroutine\)\n\n\[queues\]\n\.> a\n\.> b\n\n\[tasks\]\n  \. mine\n\nw1@test ready\.\n`)
	b.stop()
	if code := b.wait(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// TestWorkerReadyOnce wants the line scripts wait for once on standard error, whatever the log shows and where.
func TestWorkerReadyOnce(t *testing.T) {
	t.Parallel()
	broker := testservice.Miniredis(t)
	for _, level := range []string{"WARNING", "INFO"} {
		for _, file := range []string{"", filepath.Join(t.TempDir(), "w.log")} {
			b := run{args: []string{"worker", "-b", broker, "-n", "w1@test", "-q", "-l", level, "-f", file}}.start(t)
			b.output.waitFor(t, `w1@test ready\.\n`)
			b.stop()
			b.wait(t)
			if n := strings.Count(b.output.String(), "w1@test ready."); n != 1 {
				t.Errorf("level %s, file %q: it stands there %d times:\n%s", level, file, n, b.output)
			}
		}
	}
}

// TestWorkerWaitsForBroker starts a worker before its broker.
func TestWorkerWaitsForBroker(t *testing.T) {
	t.Parallel()
	server := testservice.StartRedis(t)
	server.Stop()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	_ = free.Close()
	b := run{args: []string{"worker", "-b", server.URL, "-n", "w1@test", "--health-addr", addr}}.start(t)
	b.output.waitFor(t, `WARNING/MainProcess\] .*connection refused`)
	if code, _ := probe(t, addr, "/healthz"); code != http.StatusOK {
		t.Errorf("/healthz of a worker that waits is %d", code)
	}
	if code, body := probe(t, addr, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "the broker is not there yet") {
		t.Errorf("/readyz of a worker that waits is %d: %s", code, body)
	}
	server.Restart()
	b.output.waitFor(t, `w1@test ready\.\n`)
	deadline := time.Now().Add(testLimit)
	for {
		code, body := probe(t, addr, "/readyz")
		if code == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("/readyz of a worker that is ready is %d: %s", code, body)
		}
	}
}

// probe asks a worker how it is.
func probe(t *testing.T, addr, path string) (code int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: testLimit}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(b)
}

// TestWorkerStopsWhileItWaits stops a worker that has no broker: it has done nothing wrong. Before that it heeds the other
// signals too.
func TestWorkerStopsWhileItWaits(t *testing.T) {
	t.Parallel()
	cmd, output := process(t, "worker", "-b", "redis://127.0.0.1:1/0")
	output.waitFor(t, "connection refused")
	send(t, cmd, syscall.SIGUSR1)
	output.waitFor(t, "stacks of all goroutines")
	send(t, cmd, syscall.SIGHUP)
	output.waitFor(t, "(?s)stopped before it began.*connection refused")
	send(t, cmd, syscall.SIGTERM)
	if code := exitCode(t, cmd, output); code != 0 {
		t.Errorf("exit code %d, want 0; it said\n%s", code, output)
	}
}

// TestStopsByItself abandons the only slot: a supervisor has to start the worker again.
func TestStopsByItself(t *testing.T) {
	t.Parallel()
	broker := testservice.Redis(t)
	mux := worker.NewMux()
	goOn := make(chan struct{})
	defer close(goOn)
	mux.Func("stubborn", func(context.Context) error { <-goOn; return nil }, task.TimeLimit(10*time.Millisecond))
	b := run{mux: mux, args: []string{"worker", "-b", broker, "-n", "w1@test", "-c", "1"}}.start(t)
	command(t, 0, "-b", broker, "call", "stubborn")
	if code := b.wait(t); code != exitAbandoned {
		t.Errorf("exit code %d, want 70", code)
	}
}

// TestStopTimeout turns a warm stop cold.
func TestStopTimeout(t *testing.T) {
	t.Parallel()
	broker := testservice.Redis(t)
	mux := worker.NewMux()
	began := make(chan struct{})
	var once atomic.Bool
	mux.Func("forever", func(ctx context.Context) error {
		if !once.Swap(true) {
			close(began)
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	b := run{mux: mux, args: []string{"worker", "-b", broker, "-n", "w1@test", "--stop-timeout", "0.05"}}.start(t)
	command(t, 0, "-b", broker, "call", "forever")
	select {
	case <-began:
	case <-time.After(testLimit):
		t.Fatalf("the task does not run; the worker said\n%s", b.output)
	}
	b.stop()
	if code := b.wait(t); code != exitFailed {
		t.Errorf("exit code %d, want 1", code)
	}
}

// TestMoreSignals: SIGUSR1 dumps, SIGHUP starts the program again in the same process, REMAP_SIGTERM makes one signal another.
func TestMoreSignals(t *testing.T) {
	t.Setenv("REMAP_SIGTERM", "SIGQUIT")
	broker := testservice.Redis(t)
	cmd, output := process(t, "-b", broker, "worker", "-n", "w@test", "-Q", "more")
	output.waitFor(t, `w@test ready\.\n`)
	send(t, cmd, syscall.SIGUSR1)
	output.waitFor(t, `stacks of all goroutines`)
	send(t, cmd, syscall.SIGHUP)
	output.waitFor(t, `(?s)restart \(hangup\).*w@test ready\.\n`)
	send(t, cmd, syscall.SIGTERM)
	if code := exitCode(t, cmd, output); code != 0 || !strings.Contains(output.String(), "cold stop (quit)") {
		t.Errorf("exit code %d; it said\n%s", code, output)
	}
}
