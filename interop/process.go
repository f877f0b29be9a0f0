//go:build unix

package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a program that a test started, in a process group of its own. When the test ends the whole group is
// killed; when the test process dies, too. If the test failed, what the program said is in the test's log.
type Process struct {
	Name   string
	Output *Output

	cmd    *exec.Cmd
	exited chan struct{} // closed when err is set
	err    error
}

// Start runs cmd, whose Stderr, and Stdout unless set, go to Output.
func Start(t testing.TB, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{Name: name, Output: newOutput(), cmd: cmd, exited: make(chan struct{})}
	cmd.Stderr = p.Output
	if cmd.Stdout == nil {
		cmd.Stdout = p.Output
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A grandchild that outlives the child and holds the pipe must not hold the test.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	release := guard(t, cmd.Process.Pid)
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.Kill()
		release()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, p.Output.Tail(200))
			if path, err := p.Output.save(name); err == nil {
				t.Logf("%s: all of it is in %s", name, path)
			}
		}
	})
	return p
}

// guard starts a shell that waits for the end of its standard input, which comes when this process dies however it
// dies, and then kills the process group. The kernel's own means (PDEATHSIG) is Linux only and spares grandchildren.
func guard(t testing.TB, group int) (release func()) {
	t.Helper()
	sh := exec.Command("/bin/sh", "-c", `read _; kill -s KILL -- "-$1"`, "sh", fmt.Sprint(group))
	sh.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := sh.StdinPipe()
	if err == nil {
		err = sh.Start()
	}
	if err != nil {
		t.Fatalf("guard of process group %d: %v", group, err)
	}
	return func() {
		_ = sh.Process.Kill() // before its input ends: the group's number may belong to another by now
		_ = stdin.Close()
		_ = sh.Wait()
	}
}

// WaitFor waits until a line of the output matches the expression and returns it. It gives up, and fails the test, when
// the program ends or the time is over.
func (p *Process) WaitFor(t testing.TB, expr string, limit time.Duration) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	go func() { // the end of the program ends the wait
		select {
		case <-p.exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	line, err := p.Output.waitFor(ctx, regexp.MustCompile(expr))
	if err == nil {
		return line
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("%s: no line like %q in %v", p.Name, expr, limit)
	}
	t.Fatalf("%s: it ended (%v) before a line like %q", p.Name, p.err, expr)
	return ""
}

// WaitNth waits, for a minute, until so many lines of the output match the expression.
func (p *Process) WaitNth(t testing.TB, expr string, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := p.Output.waitNth(ctx, regexp.MustCompile(expr), n); err != nil {
		t.Fatalf("%s: there are no %d lines like %q in a minute", p.Name, n, expr)
	}
}

// Stop asks the program to end (SIGTERM), waits up to limit and returns its exit code. One that does not end is killed
// and fails the test.
func (p *Process) Stop(t testing.TB, limit time.Duration) int {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		p.Kill()
		t.Errorf("%s: still there %v after SIGTERM", p.Name, limit)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Kill ends the program and all it started, at once, and waits for it. A group may outlive its leader, so it is killed
// also when the program itself has ended.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

// Signal sends a signal to the program alone.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Pid is the program's process id, also that of its group.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Exited is closed when the program has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// maxLines bounds what is kept of a program's output.
const maxLines = 20_000

// Output collects what a program says, by lines, and wakes those who wait for one.
type Output struct {
	mu      sync.Mutex
	lines   []string
	dropped int // lines forgotten at the front
	partial strings.Builder
	changed chan struct{} // closed and replaced when a line is added
}

var _ io.Writer = (*Output)(nil)

func newOutput() *Output { return &Output{changed: make(chan struct{})} }

// Write implements io.Writer.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(b)
	text := string(b)
	added := false
	for {
		line, rest, ok := strings.Cut(text, "\n")
		o.partial.WriteString(line)
		if !ok {
			break
		}
		o.lines = append(o.lines, o.partial.String())
		o.partial.Reset()
		text, added = rest, true
	}
	if over := len(o.lines) - maxLines; over > 0 {
		o.lines = append([]string(nil), o.lines[over+maxLines/2:]...)
		o.dropped += over + maxLines/2
	}
	if added {
		close(o.changed)
		o.changed = make(chan struct{})
	}
	return n, nil
}

// waitFor returns the first line, past or future, that matches.
func (o *Output) waitFor(ctx context.Context, expr *regexp.Regexp) (string, error) {
	return o.waitNth(ctx, expr, 1)
}

// waitNth returns the n-th line that matches.
func (o *Output) waitNth(ctx context.Context, expr *regexp.Regexp, n int) (string, error) {
	for next := 0; ; {
		o.mu.Lock()
		for ; next < o.dropped+len(o.lines); next++ {
			if i := next - o.dropped; i >= 0 && expr.MatchString(o.lines[i]) {
				if n--; n == 0 {
					defer o.mu.Unlock()
					return o.lines[i], nil
				}
			}
		}
		changed := o.changed
		o.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// Tail returns the last n lines.
func (o *Output) Tail(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := o.lines
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n") + "\n" + o.partial.String()
}

// Contains reports whether any line so far holds the text.
func (o *Output) Contains(text string) bool { return strings.Contains(o.Tail(maxLines), text) }

// save writes all of it to a file that outlives the test: below $GELERY_TEST_LOGS, or the folder for temporary files.
func (o *Output) save(name string) (string, error) {
	f, err := os.CreateTemp(os.Getenv("GELERY_TEST_LOGS"), "gelery-"+filepath.Base(name)+"-*.log")
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(o.Tail(maxLines))
	return f.Name(), errors.Join(err, f.Close())
}
