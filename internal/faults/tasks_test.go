//go:build unix

package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// The tasks of these tests. Each notes its runs in the ledger, with the id of its process.
var (
	// note takes a moment and returns the id of its process.
	note = task.Define[noteArgs, int]("faults.note")
	// again asks once for a retry.
	again = task.Define[task.NoArgs, task.NoResult]("faults.again", task.RetryDelay(0))
	// misbehave does what no task should.
	misbehave = task.Define[misdeed, task.NoResult]("faults.misbehave")
	// spawn sends subtasks and then ends its process.
	spawn = task.Define[spawnArgs, task.NoResult]("faults.spawn")
	// walk notes its run and returns 1; it is called in workflows, with any result before it.
	walk = task.Define[task.Raw, int]("faults.walk")
	// state notes beside the ledger what its process has open.
	state = task.Define[task.NoArgs, task.NoResult]("faults.state")
)

type noteArgs struct {
	Milliseconds int `task:"ms"`
}

type misdeed struct {
	How string `task:"how"`
}

type spawnArgs struct {
	Subtasks int `task:"subtasks"`
}

// rude panics when it is asked what it is.
type rude struct{}

func (rude) Error() string { panic("no words for it") }

// register makes the tasks known to a worker.
func register(mux *worker.Mux, client *task.Client, ledger Ledger) {
	run := func(ctx context.Context) error {
		info, _ := task.FromContext(ctx)
		return ledger.Append(info.ID, strconv.Itoa(os.Getpid()), strconv.Itoa(info.Retries))
	}
	worker.Handle(mux, note, func(ctx context.Context, a noteArgs) (int, error) {
		if err := run(ctx); err != nil {
			return 0, err
		}
		<-time.After(time.Duration(a.Milliseconds) * time.Millisecond) // the work
		return os.Getpid(), nil
	})
	worker.Handle(mux, again, func(ctx context.Context, _ task.NoArgs) (task.NoResult, error) {
		if info, _ := task.FromContext(ctx); info.Retries == 0 {
			return task.NoResult{}, task.Retry(errors.New("not yet"))
		}
		return task.NoResult{}, run(ctx)
	})
	worker.Handle(mux, walk, func(ctx context.Context, _ task.Raw) (int, error) {
		if info, _ := task.FromContext(ctx); !info.Redelivered {
			if err := ledger.first().Append(info.ID); err != nil {
				return 0, err
			}
		}
		return 1, run(ctx)
	})
	worker.Handle(mux, misbehave, func(ctx context.Context, a misdeed) (task.NoResult, error) {
		if err := run(ctx); err != nil {
			return task.NoResult{}, err
		}
		return task.NoResult{}, a.commit()
	})
	worker.Handle(mux, spawn, func(ctx context.Context, a spawnArgs) (task.NoResult, error) {
		info, _ := task.FromContext(ctx)
		for i := range a.Subtasks {
			if _, err := note.Send(ctx, client, noteArgs{}, task.ID(subtask(info.ID, i))); err != nil {
				return task.NoResult{}, err
			}
		}
		if err := run(ctx); err != nil {
			return task.NoResult{}, err
		}
		if !info.Redelivered && info.Attempts() == 0 { // the first time
			os.Exit(3)
		}
		return task.NoResult{}, nil
	})
	worker.Handle(mux, state, func(context.Context, task.NoArgs) (task.NoResult, error) {
		return task.NoResult{}, ledger.beside().Append(resources())
	})
}

// commit does the misdeed.
func (m misdeed) commit() error {
	switch m.How {
	case "panic":
		panic("for the test")
	case "nil map":
		var none map[string]int
		none["a"] = 1 //nolint:staticcheck // this is the misdeed
	case "rude error":
		return rude{}
	case "wrong index":
		var none []int
		return fmt.Errorf("%d", none[len(m.How)])
	case "goexit":
		runtime.Goexit()
	case "exit":
		<-time.After(100 * time.Millisecond) // which lets others end
		os.Exit(3)
	case "foreign panic":
		go panic("in a goroutine of the task's own")
		select {} // it has no time to end
	case "fail":
		return errors.New("for the test")
	case "spin":
		for { //nolint:staticcheck // it hears nothing
		}
	case "blow":
		var all [][]byte
		for {
			all = append(all, bytes.Repeat([]byte{1}, 64<<20)) //nolint:staticcheck // it is held, no more
		}
	case "leak":
		for range 10 {
			go func() { select {} }()
		}
	}
	return nil
}

// subtask is the id of a subtask: the same when its parent runs again.
func subtask(parent string, i int) string { return fmt.Sprintf("%s-%04d", parent, i) }

// resources counts goroutines and, on Linux, open files.
func resources() string {
	files, _ := os.ReadDir("/proc/self/fd")
	return fmt.Sprintf("%d %d", runtime.NumGoroutine(), len(files))
}

// first is a ledger of the runs of messages that had not been handed out before.
func (l Ledger) first() Ledger { return Ledger{l.Path + ".first"} }

// beside is a second ledger, for what are no runs.
func (l Ledger) beside() Ledger { return Ledger{l.Path + ".state"} }
