package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// resultDocument is what `result -o json` and `call --wait -o json` print. Result is the value as kombu's JSON writes
// it, or the meta of a custom state; Error is there in the states FAILURE, RETRY and REVOKED only.
type resultDocument struct {
	TaskID    string          `json:"task_id"`
	State     protocol.State  `json:"state"`
	Result    json.RawMessage `json:"result"`
	Error     *errorDocument  `json:"error,omitempty"`
	Traceback string          `json:"traceback,omitempty"`
}

// errorDocument is the exception; Text is the last line of its traceback in Python, "ValueError: bad".
type errorDocument struct {
	Type   string          `json:"type"`
	Module string          `json:"module"`
	Args   json.RawMessage `json:"args"`
	Text   string          `json:"text"`
}

func resultCommand(a *app) *cobra.Command {
	var (
		out       output
		traceback bool
		wait      bool
		timeout   seconds
	)
	cmd := &cobra.Command{
		Use:     "result TASK_ID",
		GroupID: groupCall,
		Short:   "Print the result of a task",
		Long: `Print the result of a task

It waits until the task is done, for ever if nobody knows the id; --timeout and --wait=false change that. The result is
printed as JSON. A task that failed, or is not done, gives exit code 1. -o json prints
{"task_id", "state", "result", "error": {"type", "module", "args", "text"}, "traceback"}, the last two if it failed.

` + exitCodes,
		Example: `  gelery --result-backend redis://localhost:6379/1 result 1b57d9cf-002a-4e13-9002-2741906076c3 --timeout 10
  gelery result 1b57d9cf-002a-4e13-9002-2741906076c3 --traceback`,
		Args: exactlyOne("the id of a task"),
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, args []string) error {
			backend := a.backendURL()
			if backend == "" {
				return noBackend("there is no result backend to ask")
			}
			config := a.config("", backend, quietLogger(a.stderr))
			client, closeClient, err := connectBriefly(ctx, config)
			if err != nil {
				return err
			}
			defer closeClient()
			result := client.Result(args[0])
			switch {
			case traceback:
				return a.printTraceback(ctx, result)
			case wait:
				return a.printResult(ctx, result, out, timeout.duration())
			}
			return a.printNow(ctx, result, out)
		}),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&traceback, "traceback", false, "print the stored traceback instead, without waiting")
	flags.BoolVar(&wait, "wait", true, "wait until the task is done")
	flags.Var(&timeout, "timeout", "how long to wait (default for ever)")
	out.add(cmd, outputPlain, outputJSON)
	addBackendFlags(cmd)
	return cmd
}

func (a *app) printTraceback(ctx context.Context, r *task.Result[any]) error {
	meta, err := r.Meta(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, strings.TrimRight(meta.Traceback, "\n"))
	return err
}

// printResult waits for the end of the task and prints how it was.
func (a *app) printResult(ctx context.Context, r *task.Result[any], o output, timeout time.Duration) error {
	waiting, cancel := ctx, context.CancelFunc(func() {})
	if timeout > 0 {
		waiting, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	for meta, err := range r.Watch(waiting) {
		if err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				return &failure{exitFailed, fmt.Sprintf("task %s is not done after %v", r.ID(), timeout),
					"it waits in its queue, it runs, or nobody has its result", a.name + " result " + r.ID()}
			}
			return err
		}
		if meta.Status.Ready() {
			return a.printMeta(meta, o)
		}
	}
	return fmt.Errorf("task %s: the result backend stopped telling of it", r.ID())
}

// printNow prints what is known of the task at this moment.
func (a *app) printNow(ctx context.Context, r *task.Result[any], o output) error {
	meta, err := r.Meta(ctx)
	if err != nil {
		return err
	}
	if meta.Status.Ready() || o == outputJSON {
		return a.printMeta(meta, o)
	}
	return &failure{exitFailed, fmt.Sprintf("task %s is not done: its state is %s", r.ID(), meta.Status), "",
		"leave --wait=false out to wait for it"}
}

// printMeta prints the end of a task: a value on standard output, or as celery does the traceback, which ends with the
// exception, on standard error.
func (a *app) printMeta(meta *protocol.ResultMeta, o output) error {
	if o == outputJSON {
		d, err := newResultDocument(meta)
		if err != nil {
			return err
		}
		if err := writeJSON(a.stdout, d); err != nil {
			return err
		}
	} else if meta.Status == protocol.Success {
		text, err := wireJSON(meta.Result)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "%s\n", text)
		return err
	} else {
		text := strings.TrimRight(meta.Traceback, "\n")
		if text == "" && meta.Exception != nil {
			text = meta.Exception.Error()
		}
		fmt.Fprintln(a.stderr, firstOf(text, string(meta.Status)))
	}
	if meta.Status != protocol.Success {
		return silent(exitFailed)
	}
	return nil
}

func newResultDocument(meta *protocol.ResultMeta) (*resultDocument, error) {
	d := &resultDocument{TaskID: meta.TaskID, State: meta.Status, Traceback: meta.Traceback}
	var err error
	if d.Result, err = wireJSON(meta.Result); err != nil {
		return nil, err
	}
	if x := meta.Exception; x != nil {
		d.Error = &errorDocument{Type: x.Type, Module: x.Module, Text: x.Error()}
		d.Error.Args, err = wireJSON(append([]any{}, x.Args...))
	}
	return d, err
}
