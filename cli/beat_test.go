package cli

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// scheduleFile writes a file of settings into a folder of its own, where the beat keeps its state, too.
func scheduleFile(t *testing.T, text string) (config string, folder string) {
	t.Helper()
	folder = t.TempDir()
	config = filepath.Join(folder, "gelery.yaml")
	text += "\nbeat_schedule_filename: " + filepath.Join(folder, "state.json") + "\nbeat_files: [" + filepath.Join(folder, "entries.yaml") + "]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config, folder
}

const often = "beat_schedule:\n  often: {task: dev.add, schedule: 0.2, args: [1, 2]}\n  bad: {task: dev.add, schedule: 0 0 30 2 *}\n"

// TestBeat: a beat sends, tells how it is, leaves out what is wrong, keeps its pid file from others, and ends well when it is told to.
func TestBeat(t *testing.T) {
	t.Parallel()
	config, folder := scheduleFile(t, often)
	pidFile, taken := filepath.Join(folder, "pid"), filepath.Join(folder, "taken")
	signals := make(chan os.Signal, 1)
	args := []string{"-b", testservice.Miniredis(t), "--config", config, "beat", "-l", "INFO", "--health-addr", "0", "--pidfile", pidFile}
	b := run{args: args, signals: signals}.start(t)
	addr := b.output.waitFor(t, `health is told address=(\S+)`)[1]
	b.output.waitFor(t, `an entry is left out error=.*gelery.yaml:1: beat_schedule: entry .*bad.*: schedule: day_of_month`)
	b.output.waitFor(t, `Sending due task often \(dev.add\)`)
	if status, body := fetch(t, addr, "/readyz"); status != http.StatusOK {
		t.Errorf("/readyz: %d %s", status, body)
	}
	if _, body := fetch(t, addr, "/metrics"); !strings.Contains(body, "\ngelery_beat_leading 1.0\n") || strings.Contains(body, "\ngelery_beat_sent_total 0.0\n") ||
		!strings.Contains(body, "\ngelery_beat_entries{store=\"local\",enabled=\"true\"} 1.0\n") {
		t.Errorf("/metrics:\n%s", body)
	}
	if err := os.WriteFile(taken, []byte(strconv.Itoa(os.Getppid())), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := run{args: []string{"--config", config, "beat", "--pidfile", taken}}.do(t)
	if code != exitCannotCreate || !strings.Contains(stderr, "pidfile "+taken+" already exists") {
		t.Errorf("a second one: exit code %d: %s", code, stderr)
	}
	signals <- syscall.SIGTERM
	if code := b.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(pidFile); err == nil {
		t.Error("the pid file is still there")
	}
}

func fetch(t *testing.T, addr, path string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// TestBeatWaits: a broker that is not there is waited for, and a signal ends that well.
func TestBeatWaits(t *testing.T) {
	t.Parallel()
	config, _ := scheduleFile(t, often)
	signals := make(chan os.Signal, 1)
	b := run{args: []string{"-b", "redis://127.0.0.1:1/0", "--config", config, "beat", "--health-addr", "0", "-l", "INFO"}, signals: signals}.start(t)
	addr := b.output.waitFor(t, `health is told address=(\S+)`)[1]
	if status, body := fetch(t, addr, "/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d %s", status, body)
	}
	b.output.waitFor(t, `connection refused`)
	signals <- syscall.SIGINT
	if code := b.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// TestWorkerBeat: the beat in a worker ends with it.
func TestWorkerBeat(t *testing.T) {
	t.Parallel()
	config, folder := scheduleFile(t, often)
	b := run{args: []string{"-b", testservice.Miniredis(t), "--config", config, "worker", "-B", "--demo", "-l", "INFO"}}.start(t)
	b.output.waitFor(t, `Task dev.add\[\S+\] succeeded`)
	b.stop()
	if code := b.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(filepath.Join(folder, "state.json")); err != nil {
		t.Error(err)
	}
}

// TestProgramEntries: entries of the program are sent, by dev as well.
func TestProgramEntries(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ran := make(chan struct{}, 1)
	mux := worker.NewMux()
	mux.Func("tick", func() {
		select {
		case ran <- struct{}{}:
		default:
		}
	})
	entry := &scheduler.Entry{Name: "tick", Schedule: scheduler.Must(scheduler.Every(100 * time.Millisecond)), Task: task.S("tick")}
	ended := make(chan int, 1)
	go func() { ended <- Run(ctx, mux, []string{"dev", "-q"}, io.Discard, io.Discard, Schedule(entry)) }()
	select {
	case <-ran:
	case code := <-ended:
		t.Fatalf("dev ended with %d", code)
	case <-time.After(testLimit):
		t.Fatal("the task never ran")
	}
	stop()
	if code := <-ended; code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// TestPIDFile takes over what a dead process left.
func TestPIDFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pid")
	for _, text := range []string{"999999999\n", "no number\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		remove, err := holdPIDFile(path)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		remove()
	}
	if _, err := holdPIDFile(filepath.Join(path, "none", "pid")); err == nil {
		t.Error("a folder that is not there")
	}
}
