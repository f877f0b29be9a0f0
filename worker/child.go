//go:build unix

package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gelery/gelery/internal/poolchild"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
)

const (
	// startLimit is how long a child may take until it serves: the program's own start is in it.
	startLimit = 2 * time.Minute
	// retireGrace is how long a child that is let go may take to end.
	retireGrace = 5 * time.Second
	// leftoverGrace is how long what a dead child has written is still read.
	leftoverGrace = time.Second
)

// child is one child process as its parent sees it.
type child struct {
	pool *processes
	cmd  *exec.Cmd
	pipe *pipe

	born   time.Time     // when it began to serve
	exited chan struct{} // closed when it has been waited for

	// of whoever has it in use
	served int   // runs it has taken
	peak   int64 // bytes, the most memory it has had resident, told with each run if that is limited
	spent  bool  // it has had its share
	broken bool  // it was lost in a run

	mu     sync.Mutex
	run    uint64 // the number of the run under way, 0 for none
	last   uint64 // number of the last run
	reaped bool
	killed bool   // we killed it for what was in its run
	fate   string // why we killed it during the run under way

	// under pool.mu
	inUse   bool // a slot has it
	busy    bool // a run uses it
	left    bool // the slot has left it to the run
	counted bool // among those the pool has; not when it is on its way out
	dead    bool

	finished bool // a run
	proven   bool // it has started well
}

// launch starts a child and waits until it serves.
func (p *processes) launch() (*child, error) {
	theirIn, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	in, theirOut, err := os.Pipe()
	if err != nil {
		_ = errors.Join(theirIn.Close(), out.Close())
		return nil, err
	}
	c := &child{pool: p, pipe: newPipe(in, out), exited: make(chan struct{})}
	c.cmd = exec.CommandContext(p.life, ownProgram(), os.Args[1:]...) //nolint:gosec // our own program and arguments once more
	c.cmd.Args[0] = os.Args[0]
	c.cmd.Env = append(os.Environ(), poolchild.Variable+"="+p.w.config.Hostname)
	c.cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	c.cmd.Stdout, c.cmd.Stderr = os.Stderr, os.Stderr
	c.cmd.SysProcAttr = childAttributes()
	c.cmd.Cancel = func() error { c.kill(0, ""); return nil }
	err = p.forker.start(c.cmd)
	_ = errors.Join(theirIn.Close(), theirOut.Close())
	if err != nil {
		c.pipe.close()
		return nil, err
	}
	p.running.Go(c.await)
	if err := c.greet(); err != nil {
		c.kill(0, "")
		select {
		case <-c.exited:
			err = fmt.Errorf("%w (%s)", err, c.exit())
		case <-time.After(retireGrace):
		}
		c.pipe.close()
		return nil, err
	}
	c.born = time.Now()
	return c, nil
}

// ownProgram is the path of the running program, also after the file at its place was replaced.
func ownProgram() string {
	const self = "/proc/self/exe"
	path, err := os.Executable()
	if err != nil {
		return self
	}
	running, err := os.Stat(self)
	if err != nil {
		return path // no /proc here
	}
	if there, err := os.Stat(path); err == nil && os.SameFile(running, there) {
		return path
	}
	return self
}

// greet waits for the child's first word: that it serves, and which tasks it has.
func (c *child) greet() error {
	_ = c.pipe.in.SetReadDeadline(time.Now().Add(startLimit))
	f, err := c.pipe.read()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("it did not come to Worker.Run of %s in %v", c.pool.w.config.Hostname, startLimit)
	case err != nil:
		return errors.New("it ended before it came to Worker.Run")
	case f.kind != frameHello:
		return errFrame
	}
	_ = c.pipe.in.SetReadDeadline(time.Time{})
	names := strings.Split(string(f.body), "\n")
	for name := range c.pool.w.tasks {
		if _, has := slices.BinarySearch(names, name); !has {
			return fmt.Errorf("it does not know the task %s: a program must register the same tasks whether IsChild or not", name)
		}
	}
	return nil
}

// await waits for the process to end, and ends what it has left behind in its process group.
func (c *child) await() {
	_ = c.cmd.Wait()
	c.mu.Lock()
	c.reaped = true
	// The group's number is not given to another process while one of the group lives; with none left this does nothing.
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	c.mu.Unlock()
	// What it has written last is still read. Its ends of the pipes may live on in a process that it made: for a moment.
	_ = c.pipe.in.SetReadDeadline(time.Now().Add(leftoverGrace))
	_ = c.pipe.out.SetWriteDeadline(time.Now().Add(leftoverGrace))
	close(c.exited)
	c.pool.gone(c)
}

// kill ends the child, with all that it has started, if it is in the given run (0: in any and in none). The fate is why.
func (c *child) kill(run uint64, fate string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped || run != 0 && run != c.run {
		return
	}
	if run != 0 {
		c.killed = true
		if c.fate == "" {
			c.fate = fate
		}
	}
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
}

// retire lets an idle child go: it ends when it finds its pipe closed, and is killed when it does not.
func (c *child) retire() {
	_ = c.pipe.out.Close()
	c.pool.running.Go(func() {
		grace := time.NewTimer(retireGrace)
		defer grace.Stop()
		select {
		case <-c.exited:
		case <-grace.C:
			c.kill(0, "")
		}
	})
}

// meant tells that the child's end is our doing.
func (c *child) meant() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.killed
}

// exitNow is exit of a child that may not have been waited for yet.
func (c *child) exitNow() string {
	select {
	case <-c.exited:
		return c.exit()
	default:
		return "unknown"
	}
}

// exit is how the process ended, in billiard's words.
func (c *child) exit() string {
	status, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return c.cmd.ProcessState.String()
	case status.Signaled():
		return fmt.Sprintf("signal %d (%s)", status.Signal(), signalName(status.Signal()))
	}
	return fmt.Sprintf("exitcode %d", status.ExitStatus())
}

// signalName is the name of the signals that end processes.
func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGKILL:
		return "SIGKILL"
	case syscall.SIGSEGV:
		return "SIGSEGV"
	case syscall.SIGABRT:
		return "SIGABRT"
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGQUIT:
		return "SIGQUIT"
	case syscall.SIGINT:
		return "SIGINT"
	case syscall.SIGBUS:
		return "SIGBUS"
	}
	return s.String()
}

// number begins a run: from now on the child can be killed for it.
func (c *child) number() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	c.run, c.fate = c.last, ""
	return c.run
}

// pid is the process's number.
func (c *child) pid() int { return c.cmd.Process.Pid }

// begin hands a task to the child. With an error the child is lost, and has not begun.
func (c *child) begin(ctx context.Context, e *execution, run uint64) error {
	c.served++
	return c.pipe.write(frameRun, run, func(b []byte) ([]byte, error) {
		b = appendField(b, e.delivery.Queue)
		b = appendFlags(b, e.info.Report != nil, e.delivery.Redelivered, c.pool.w.config.MaxMemoryPerChild > 0)
		deadline := int64(0)
		if t, ok := ctx.Deadline(); ok {
			deadline = t.UnixNano()
		}
		b = binary.AppendVarint(b, deadline)
		return protocol.AppendEnvelope(b, e.delivery.Message), nil
	})
}

// present is the number of the run under way, 0 for none.
func (c *child) present() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.run
}

// over ends the run: nothing kills the child for it any more.
func (c *child) over() (fate string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.run = 0
	return c.fate
}

// converse answers the child's reports until it tells what came of the run.
func (c *child) converse(e *execution, run uint64) (completion, error) {
	for {
		f, err := c.pipe.read()
		switch {
		case err != nil:
			return completion{}, err
		case f.run != run:
			return completion{}, errFrame // a child ends a run with all that belongs to it
		case f.kind == frameReport:
			if err := c.answer(e, f); err != nil {
				return completion{}, err
			}
			continue
		case f.kind != frameDone:
			return completion{}, errFrame
		}
		body := &fields{body: f.body}
		c.peak = int64(body.number())
		sent, passed := readSent(body), readPassed(body)
		done, children, err := readCompletion(body)
		if err != nil {
			return completion{}, err
		}
		e.info.SetChildren(children)
		e.info.PassHeadersOn(passed)
		for key, n := range sent {
			c.pool.w.metrics.sent(key.name, key.queue, n)
		}
		return done, nil
	}
}

// answer stores a state that the task reports and tells the child what came of it.
func (c *child) answer(e *execution, f frame) error {
	body := &fields{body: f.body}
	number, state := body.number(), protocol.State(body.text())
	if body.err != nil || e.info.Report == nil {
		return errFrame
	}
	m, err := protocol.DecodeResult(body.body, serialization.JSON)
	if err != nil {
		return err
	}
	e.info.SetChildren(m.Children)
	// The task says how long it waits; its context may be done and the report still wanted, after a soft limit.
	ctx, cancel := context.WithTimeout(c.pool.w.applying, settleGrace)
	defer cancel()
	failed := e.info.Report(ctx, state, m.Result)
	return c.pipe.write(frameReported, f.run, func(b []byte) ([]byte, error) {
		b = binary.AppendUvarint(b, number)
		if failed != nil {
			b = append(b, failed.Error()...)
		}
		return b, nil
	})
}

// cancel tells the child that the run's context is done.
func (c *child) cancel(run uint64, cause error) {
	_ = c.pipe.write(frameCancel, run, func(b []byte) ([]byte, error) { return append(b, causeText(cause)...), nil })
}

// lostText says how the child was lost, in the words of WorkerLostError.
func (c *child) lostText(fate string) string {
	if fate != "" {
		return fate
	}
	exit := "unknown"
	select {
	case <-c.exited:
		exit = c.exit()
	case <-time.After(retireGrace): // it cannot be killed: in the kernel's hands
	}
	return fmt.Sprintf("Worker exited prematurely: %s Pid: %d.", exit, c.cmd.Process.Pid)
}

// lost is the completion of a run whose child is gone.
func lost(text string) completion {
	return completion{state: protocol.Failure, lost: true,
		exception: &protocol.Exception{Type: "WorkerLostError", Module: "billiard.exceptions", Args: []any{text}}}
}
