//go:build unix

package taskfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// script is a task file with one program, a shell script.
func script(text string, more ...string) string {
	return fmt.Sprintf("tasks:\n- name: t.run\n  command: [sh, -c, %q, sh%s]\n", text, strings.Join(append([]string{""}, words(more)...), ", "))
}

// words are the arguments of a script up to a line that begins with two spaces.
func words(more []string) []string {
	var out []string
	for _, m := range more {
		out = append(out, strconv.Quote(m))
	}
	return out
}

func TestProgramCalls(t *testing.T) {
	t.Parallel()
	kwargs := map[string]any{"name": "O'Brien; rm -rf $HOME", "n": int64(3), "deep": map[string]any{"a": []any{nil, true}}}
	for name, c := range map[string]struct {
		text   string
		args   []any
		kwargs map[string]any
		want   any
	}{
		"json in and out": {script("cat"), []any{int64(1), "ü"}, kwargs, map[string]any{"id": "id-1", "task": "t.run", "retries": int64(2),
			"args": []any{int64(1), "ü"}, "kwargs": kwargs}},
		"no arguments":         {script("cat"), nil, nil, map[string]any{"id": "id-1", "task": "t.run", "retries": int64(2), "args": []any{}, "kwargs": map[string]any{}}},
		"placeholders":         {script(`printf '%s|' "$@"`, "{{args.0}}", "a{{ kwargs.n }}b{{id}}", "{{kwargs.deep}}", "{{retries}}{{task}}") + "  output: text\n", []any{"$(x) y"}, kwargs, `$(x) y|a3bid-1|{"a":[null,true]}|2t.run|`},
		"as arguments":         {script(`printf '%s|' "$@"`) + "  input: arguments\n  output: text\n", []any{"a b", 1.5, nil}, map[string]any{"n": int64(3), "name": "x"}, "a b|1.5||--n=3|--name=x|"},
		"in the environment":   {script(`printf %s "$TASK_ID $TASK_NAME $TASK_RETRIES $TASK_ARG_0 $TASK_KWARG_A_B"`) + "  input: environment\n  output: text\n", []any{"x"}, map[string]any{"a-b": "y"}, "id-1 t.run 2 x y"},
		"own variables":        {script(`printf %s "$WHO"`) + "  output: text\n  env: {WHO: 'is {{kwargs.n}}'}\n", nil, kwargs, "is 3"},
		"nothing on input":     {script(`cat`) + "  input: none\n  output: text\n", []any{"x"}, nil, ""},
		"empty json":           {script(`:`), nil, nil, nil},
		"output none":          {script(`echo nonsense`) + "  output: none\n", nil, nil, nil},
		"numbers stay":         {script(`echo '[1, 1.0, 123456789012345678901234567890]'`), nil, nil, nil},
		"exit code is fine":    {script(`echo 5; exit 3`) + "  exit: {3: success}\n", nil, nil, int64(5)},
		"one newline is taken": {script(`printf 'a\n\n'`) + "  output: text\n", nil, nil, "a\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := run(t.Context(), one(t, c.text), c.args, c.kwargs)
			if err != nil {
				t.Fatal(err)
			}
			if name == "numbers stay" {
				if fmt.Sprint(v) != "[1 1 123456789012345678901234567890]" {
					t.Errorf("got %v", v)
				}
			} else if !reflect.DeepEqual(v, c.want) {
				t.Errorf("got %#v; expected %#v", v, c.want)
			}
		})
	}
}

func TestProgramFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text        string
		args        []any
		class, says string
	}{
		"exit code":  {script(`echo oh no >&2; exit 4`), nil, "CalledProcessError", "exit code 4; it said: oh no"},
		"signal":     {script(`kill -9 $$`), nil, "CalledProcessError", "ended by signal killed"},
		"no json":    {script(`echo '{'`), nil, "ValueError", "its output is not what output: json says"},
		"no text":    {script(`printf '\377'`) + "  output: text\n", nil, "ValueError", "it is not UTF-8"},
		"missing":    {script(`:`, "{{args.1}}"), []any{"a"}, "TypeError", "missing an argument: {{args.1}}"},
		"nul":        {script(`:`, "{{args.0}}"), []any{"a\x00b"}, "ValueError", "NUL"},
		"nul in env": {script(`:`) + "  input: environment\n", []any{"a\x00b"}, "ValueError", "NUL"},
		"too long":   {script(`:`, "{{args.0}}"), []any{strings.Repeat("x", 4<<20)}, "OSError", "argument list too long"},
		"too much":   {script(`yes`) + "  max_output: 1000\n", nil, "CalledProcessError", "larger than 1000 bytes"},
		"endless":    {script(`cat /dev/zero`), nil, "CalledProcessError", "larger than 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := run(t.Context(), one(t, c.text), c.args, nil)
			wantException(t, err, c.class, c.says)
		})
	}
	_, err := run(t.Context(), one(t, script(`echo oh no >&2; exit 4`)), nil, nil)
	if args := task.ExceptionOf(err).Args; len(args) != 4 || args[0] != int64(4) || args[1] != "sh" || args[3] != "oh no\n" {
		t.Errorf("the exception's arguments are %#v; expected those of CalledProcessError", args)
	}
}

// TestProgramGoes: a program that was there when the worker began, and is gone or of no use when it is called.
func TestProgramGoes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	program, tasks := filepath.Join(dir, "program"), filepath.Join(dir, "tasks.yaml")
	if err := errors.Join(os.WriteFile(program, []byte("#!/bin/sh\necho 1\n"), 0o700),
		os.WriteFile(tasks, []byte("tasks:\n- {name: t, command: [./program]}\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	all, err := Load(tasks)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := run(t.Context(), all[0], nil, nil); err != nil || v != int64(1) {
		t.Errorf("got %v, %v; expected 1", v, err)
	}
	if err := os.WriteFile(program, []byte("#!/no/such/shell\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err = run(t.Context(), all[0], nil, nil)
	wantException(t, err, "FileNotFoundError", "does not start")
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	_, err = run(t.Context(), all[0], nil, nil)
	wantException(t, err, "FileNotFoundError", "does not start")
	for text, want := range map[string]string{"[no-such-program]": "not found", "[./none]": "no such file", "[/etc/passwd]": "permission denied"} {
		if _, err := load(t, "tasks:\n- {name: t, command: "+text+"}\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; expected %s", text, err, want)
		}
	}
}

func TestExitActions(t *testing.T) {
	t.Parallel()
	text := script(`exit "$1"`, "{{args.0}}") + "  exit: {1-9: ignore, 5: reject, 75: retry, 100: success}\n"
	if _, err := run(t.Context(), one(t, text), []any{int64(3)}, nil); !errors.Is(err, task.Ignore) {
		t.Errorf("3: %v; expected Ignore", err)
	}
	_, err := run(t.Context(), one(t, text), []any{int64(5)}, nil)
	if rejected, ok := errors.AsType[*task.RejectError](err); !ok || rejected.Requeue {
		t.Errorf("5: %v; expected Reject without requeue", err)
	}
	if _, err := run(t.Context(), one(t, text), []any{int64(100)}, nil); err != nil {
		t.Errorf("100: %v; expected success", err)
	}
	_, err = run(t.Context(), one(t, text), []any{int64(75)}, nil)
	if wantException(t, err, "CalledProcessError", "exit code 75"); !errors.Is(err, errAgain) {
		t.Errorf("75: %v; expected it to be tried again", err)
	}
	_, err = run(t.Context(), one(t, text), []any{int64(10)}, nil)
	wantException(t, err, "CalledProcessError", "exit code 10")
}

// TestSecretsStay: what the worker knows reaches a program only when the file says so.
func TestSecretsStay(t *testing.T) {
	t.Setenv("CELERY_BROKER_URL", "redis://:secret@host/0")
	t.Setenv("SHARED", "yes")
	t.Setenv("TOKEN", "$(x) {{id}} {{")
	v, err := run(t.Context(), one(t, script(`printf %s "$T ${TOKEN-unset}"`)+"  output: text\n  env: {T: 'is ${TOKEN}'}\n"), nil, nil)
	if err != nil || v != "is $(x) {{id}} {{ unset" {
		t.Errorf("the program saw %q, %v", v, err)
	}
	v, err = run(t.Context(), one(t, script(`printf %s "$CELERY_BROKER_URL$SHARED"`)+"  output: text\n  inherit_env: [SHARED]\n"), nil, nil)
	if err != nil || v != "yes" {
		t.Errorf("the program saw %q, %v", v, err)
	}
}

// begun returns a context and a task that runs a script which writes its process id, and waits for that. The script finds
// the file's path in PIDFILE.
func begun(ctx context.Context, t *testing.T, text, more string) (pid int, ended <-chan error) {
	t.Helper()
	pidFile := filepath.Join(t.TempDir(), "pid")
	d := one(t, script(text)+"  env: {PIDFILE: '"+pidFile+"'}\n"+more)
	done := make(chan error, 1)
	go func() {
		_, err := run(ctx, d, nil, nil)
		done <- err
	}()
	return awaitPid(t, pidFile), done
}

// awaitPid waits until a script has written its process id.
func awaitPid(t *testing.T, file string) int {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if data, err := os.ReadFile(file); err == nil && bytes.HasSuffix(data, []byte("\n")) {
			pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
		if time.Now().After(deadline) {
			t.Fatal("the program did not begin")
		}
		<-time.After(5 * time.Millisecond)
	}
}

func receive(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the program does not end")
		return nil
	}
}

func TestSoftLimitTerminates(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	_, ended := begun(ctx, t, `trap 'echo clean >&2; exit 0' TERM; echo $$ >"$PIDFILE"; while :; do sleep 0.01; done`, "")
	cancel(task.ErrSoftTimeLimit)
	if err := receive(t, ended); !errors.Is(err, task.ErrSoftTimeLimit) || !strings.HasSuffix(err.Error(), "clean") {
		t.Errorf("got %v; expected the soft limit, and that the program had cleaned up", err)
	}
}

// TestGroupIsKilled: a program that ignores SIGTERM is killed after kill_after, with what it has started.
func TestGroupIsKilled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cause error
		more  string
	}{
		"soft":       {task.ErrSoftTimeLimit, "  kill_after: 0.1\n"},
		"hard":       {&task.TimeLimitError{Limit: time.Second}, "  kill_after: 1h\n"},
		"soft, hard": {task.ErrSoftTimeLimit, "  kill_after: 1h\n"}, // at limits that the file does not know
		"terminated": {task.ErrRevoked, "  kill_after: 1h\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			givenUp := make(chan struct{})
			ctx := task.NewContext(t.Context(), &task.Info{Request: &protocol.Request{}, Logger: slog.New(slog.DiscardHandler), GivenUp: givenUp})
			ctx, cancel := context.WithCancelCause(ctx)
			grandchild, ended := begun(ctx, t, `trap '' TERM; sleep 1000 & echo $! >"$PIDFILE"; wait; sleep 1000`, c.more)
			cancel(c.cause)
			if name == "soft, hard" {
				close(givenUp)
			}
			if err := receive(t, ended); !errors.Is(err, c.cause) {
				t.Errorf("got %v; expected %v", err, c.cause)
			}
			awaitDeath(t, grandchild)
		})
	}
}

// TestLeftBehind: a program that ends with something in the background does not keep the task, nor the something.
func TestLeftBehind(t *testing.T) {
	t.Parallel()
	grandchild, ended := begun(t.Context(), t, `sleep 1000 & echo $! >"$PIDFILE"; echo 1`, "  kill_after: 0.2\n")
	if err := receive(t, ended); err != nil {
		t.Error(err)
	}
	awaitDeath(t, grandchild)
}

// TestDiesWithItsWorker: a worker, or a child of its process pool, that is killed leaves no program behind.
func TestDiesWithItsWorker(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a program that its parent is dead")
	}
	if pidFile := os.Getenv("GELERY_TEST_PIDFILE"); pidFile != "" { // this is the worker
		_, _ = run(t.Context(), one(t, script(`trap '' TERM; echo $$ >"$PIDFILE"; exec sleep 1000`)+"  env: {PIDFILE: '"+pidFile+"'}\n"), nil, nil)
		return
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	worker := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDiesWithItsWorker$")
	worker.Env = append(os.Environ(), "GELERY_TEST_PIDFILE="+pidFile)
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	pid := awaitPid(t, pidFile)
	if err := worker.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = worker.Wait()
	awaitDeath(t, pid)
}

func awaitDeath(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if syscall.Kill(pid, 0) != nil || err == nil && bytes.Contains(stat, []byte(") Z ")) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d lives", pid)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestStandardErrorIsLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	ctx := task.NewContext(t.Context(), &task.Info{Request: &protocol.Request{}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	d := one(t, script(`i=0; while [ $i -lt 300 ]; do echo "line $i" >&2; i=$((i+1)); done; printf 'no end' >&2; exit 1`))
	_, err := run(ctx, d, nil, nil)
	wantException(t, err, "CalledProcessError", "line 299\nno end")
	if text := log.String(); strings.Count(text, "WARN") != mostLogged || !strings.Contains(text, "line 98") || !strings.Contains(text, "not logged") {
		t.Errorf("%d lines logged; expected %d\n%s", strings.Count(text, "WARN"), mostLogged, text)
	}
}
