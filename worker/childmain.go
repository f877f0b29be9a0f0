package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gelery/gelery/internal/poolchild"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// IsChild tells whether this process is a child of a worker's process pool: the same program as its parent, started
// with the same arguments, which serves its parent once it comes to [Worker.Run]. A program asks if it does things before
// that which only one process may do: listen on a port, write a pid file. It must register the same tasks either way.
func IsChild() bool { return poolchild.Is() }

// childEnd is how long a child's program may take to end once it is not needed.
const childEnd = 10 * time.Second

// server is the child's side of the pool: it runs what the parent sends.
type server struct {
	w    *Worker
	pipe *pipe

	mu      sync.Mutex
	current *served
}

// served is a run in a child.
type served struct {
	number  uint64
	cancel  context.CancelCauseFunc
	answers map[uint64]chan error // of reports under way
	reports uint64
	over    bool
}

// childServed is closed when this process, a child, is not needed any more.
var childServed = make(chan struct{})

// serve runs the parent's tasks, one at a time, until the parent closes its end. Then it returns, so that the program ends
// as it always does; but if a task is running then, the parent is gone and the process ends at once: the task's message
// is somebody else's.
func (w *Worker) serve() error {
	if poolchild.Node() != w.config.Hostname {
		<-childServed // another worker of this program is the one whose child this is
		return nil
	}
	defer close(childServed)
	absorbSignals()
	s := &server{w: w, pipe: newPipe(poolchild.Pipes())}
	names := make([]string, 0, len(w.tasks))
	for name := range w.tasks {
		names = append(names, name)
	}
	slices.Sort(names)
	err := s.pipe.write(frameHello, 0, func(b []byte) ([]byte, error) { return append(b, strings.Join(names, "\n")...), nil })
	for err == nil {
		var f frame
		if f, err = s.pipe.read(); err != nil {
			break
		}
		switch f.kind {
		case frameRun:
			err = s.begin(f)
		case frameCancel:
			s.cancelRun(f)
		case frameReported:
			s.answered(f)
		default:
			err = errFrame
		}
	}
	if s.busy() {
		endGroup()
		os.Exit(1)
	}
	time.AfterFunc(childEnd, func() { os.Exit(1) })
	return nil
}

func (s *server) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current != nil
}

// begin starts a task in a goroutine of its own.
func (s *server) begin(f frame) error {
	body := &fields{body: f.body}
	var reports, redelivered, memory bool
	d := &transport.Delivery{Queue: body.text()}
	body.flags(&reports, &redelivered, &memory)
	deadline := body.signed()
	if body.err != nil {
		return body.err
	}
	d.Redelivered = redelivered
	run := &served{number: f.run, answers: map[uint64]chan error{}}
	ctx, cancel := context.WithCancelCause(context.Background())
	run.cancel = cancel
	s.mu.Lock()
	s.current = run
	s.mu.Unlock()
	e, err := s.execution(d, body.body)
	if err != nil {
		s.finish(run, e, failure(err, nil), memory)
		return nil
	}
	if reports {
		e.info.Report = s.reporter(run, e.info)
	}
	ctx = task.NewContext(ctx, e.info)
	release := func() {}
	if deadline != 0 {
		ctx, release = context.WithDeadlineCause(ctx, time.Unix(0, deadline), task.ErrSoftTimeLimit)
	}
	go func() { // one made for this run only, as in execute
		s.w.tellStarted(e)
		e.begin()
		c := failure(errGoexit, nil)
		defer func() {
			s.tellEnded(ctx, e, c)
			release()
			cancel(nil)
			s.finish(run, e, c, memory)
		}()
		c = goroutines{s.w}.run(ctx, e)
	}()
	return nil
}

// tellEnded calls the hooks for the end of a run, as the parent will see it.
func (s *server) tellEnded(ctx context.Context, e *execution, c completion) {
	if c.state != protocol.Success && errors.Is(context.Cause(ctx), ErrTerminated) {
		s.w.tellCut(e)
		return
	}
	s.w.tellEnded(e, c)
}

// execution makes the parent's job anew from its message.
func (s *server) execution(d *transport.Delivery, envelope []byte) (*execution, error) {
	e := &execution{job: &job{delivery: d, request: &protocol.Request{}}, info: &task.Info{}, hearers: childHooks}
	var err error
	if d.Message, err = protocol.DecodeEnvelope(envelope); err != nil {
		return e, err
	}
	if e.request, err = protocol.DecodeRequest(d.Message, s.w.accept); err != nil {
		return e, err
	}
	if e.task = s.w.tasks[e.request.Task]; e.task == nil {
		return e, fmt.Errorf("%w: %s", task.ErrNotRegistered, e.request.Task)
	}
	e.info = s.w.info(d, e.request, e.task.Defaults.Secrets)
	return e, nil
}

// finish tells the parent what came of the run. It is the run's last word.
func (s *server) finish(run *served, e *execution, c completion, memory bool) {
	id, children := e.request.ID, e.info.Children()
	if id == "" {
		id = "unknown"
	}
	body, err := appendCompletion(nil, id, &c, children)
	if err == nil && len(body) > maxFrame/2 {
		err = fmt.Errorf("result of %d bytes is larger than a child process can hand over", len(body))
	}
	if err != nil {
		c = failure(task.AsPython(fmt.Errorf("result cannot be encoded: %w", err), "kombu.exceptions", "EncodeError"), nil)
		body, _ = appendCompletion(nil, id, &c, children)
	}
	peak := int64(0)
	if memory {
		peak = peakMemory()
	}
	sent, passed := s.w.metrics.takeSent(), e.info.PassedHeaders()
	err = s.pipe.write(frameDone, run.number, func(b []byte) ([]byte, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		run.over = true // here, so that no report comes behind it
		s.current = nil // before it is sent: the next run may come right after it
		b = binary.AppendUvarint(b, uint64(max(peak, 0)))
		b = appendPassed(appendSent(b, sent), passed)
		return append(b, body...), nil
	})
	if err != nil {
		os.Exit(1) // the parent is gone
	}
}

// reporter hands the states that the task reports to the parent, and waits for what it says.
func (s *server) reporter(run *served, info *task.Info) task.Reporter {
	return func(ctx context.Context, state protocol.State, meta any) error {
		document, err := protocol.AppendResult(nil, &protocol.ResultMeta{TaskID: info.ID, Status: protocol.Started, Result: meta,
			Children: info.Children()}, serialization.JSON)
		if err != nil {
			return err
		}
		var number uint64
		answer := make(chan error, 1)
		err = s.pipe.write(frameReport, run.number, func(b []byte) ([]byte, error) {
			if number = s.expect(run, answer); number == 0 {
				return nil, errGivenUp
			}
			b = binary.AppendUvarint(b, number)
			return append(appendField(b, string(state)), document...), nil
		})
		if err != nil {
			return err
		}
		select {
		case err := <-answer:
			return err
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(run.answers, number)
			return context.Cause(ctx)
		}
	}
}

// expect notes who waits for the answer to a report, and numbers it; 0: the run is over.
func (s *server) expect(run *served, answer chan error) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if run.over {
		return 0
	}
	run.reports++
	run.answers[run.reports] = answer
	return run.reports
}

// answered hands the parent's answer to whoever waits for it.
func (s *server) answered(f frame) {
	body := &fields{body: f.body}
	number := body.number()
	var err error
	if len(body.body) > 0 {
		err = errors.New(string(body.body))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if run := s.current; run != nil && run.number == f.run {
		if answer, ok := run.answers[number]; ok {
			delete(run.answers, number)
			answer <- err
		}
	}
}

// cancelRun ends the context of the run, if it is still the one under way.
func (s *server) cancelRun(f frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if run := s.current; run != nil && run.number == f.run {
		run.cancel(causeOf(string(f.body)))
	}
}

// causes are those of a task's context that a task can tell from others. They travel by their texts.
var causes = []error{task.ErrSoftTimeLimit, task.ErrRevoked, ErrTerminated}

func causeText(cause error) string {
	for _, known := range causes {
		if errors.Is(cause, known) {
			return known.Error()
		}
	}
	if cause == nil {
		return context.Canceled.Error()
	}
	return cause.Error()
}

func causeOf(text string) error {
	for _, known := range causes {
		if known.Error() == text {
			return known
		}
	}
	return errors.New(text)
}
