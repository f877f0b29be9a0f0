//go:build unix

package taskfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// program runs a command for each call.
type program struct {
	*entry
	path    string     // of the program, or its name
	command []template // its first is the program
	env     map[string]template
	exit    []codes
}

// program checks what an entry says of its command.
func (e *entry) program(complain func(string, ...any)) task.Handler {
	p := &program{entry: e, env: map[string]template{}}
	e.oneOf(complain, "input", e.Input, "", inputJSON, inputArguments, inputEnvironment, none)
	e.Input = either(e.Input, inputJSON)
	e.Output = either(e.Output, outputJSON)
	e.KillAfter = either(e.KillAfter, period(defaultKillAfter))
	if e.Status != nil {
		complain("status is for http tasks; a command has exit")
	}
	for _, text := range e.Command {
		t, err := parseTemplate(text, nil)
		if err != nil {
			complain("command: %v", err)
		}
		p.command = append(p.command, t)
	}
	if len(p.command) > 0 {
		p.find(complain)
	}
	for name, text := range e.Env {
		t, err := parseTemplate(text, expander("env: "+name, complain))
		if err != nil || name == "" || strings.ContainsAny(name, "=\x00") {
			complain("env: %s: %v", name, errors.Join(err))
		}
		p.env[name] = t
	}
	var err error
	if p.exit, err = e.Exit.rules(255, actions{"0": success, "*": failed}); err != nil {
		complain("exit: %v", err)
	}
	e.Dir = expander("dir", complain)(e.Dir)
	switch {
	case e.Dir == "":
		e.Dir = e.folder
	case !filepath.IsAbs(e.Dir):
		e.Dir = filepath.Join(e.folder, e.Dir)
	}
	if info, err := os.Stat(e.Dir); err != nil || !info.IsDir() {
		complain("dir: %s is no folder", e.Dir)
	}
	return p.handle
}

// find looks for the program, which must be there when the worker begins. A path is relative to the file.
func (p *program) find(complain func(string, ...any)) {
	if len(p.command[0]) != 1 || p.command[0][0].read != nil {
		complain("command: its first word is the program, which no placeholder may choose")
		return
	}
	p.path = p.command[0][0].text
	if strings.ContainsRune(p.path, filepath.Separator) && !filepath.IsAbs(p.path) {
		p.path = filepath.Join(p.folder, p.path)
	}
	if _, err := exec.LookPath(p.path); err != nil {
		complain("command: %v", err)
	}
}

// errOutput ends a program that says too much.
var errOutput = errors.New("its output is larger than max_output")

// handle runs the program once.
func (p *program) handle(ctx context.Context, r *protocol.Request) (any, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd, release, err := p.prepare(ctx, r)
	if err != nil {
		return nil, err
	}
	defer release()
	runtime.LockOSThread() // lest the thread ends before the program, and the program with it
	defer runtime.UnlockOSThread()
	out := &bounded{most: p.MaxOutput, full: func() { cancel(errOutput) }}
	diagnostics := newDiagnostics(ctx)
	cmd.Stdout, cmd.Stderr = out, diagnostics
	err = cmd.Start()
	if err == nil {
		err = cmd.Wait()
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left running
	}
	diagnostics.flush()
	return p.outcome(ctx, cmd, out, diagnostics, err)
}

// prepare makes the command of a call. It runs in a process group of its own, which is ended with it. When ctx is done by
// a soft time limit or a stop, the group gets SIGTERM, and after KillAfter SIGKILL; it gets SIGKILL at once when it is
// given up: hard limit, also after a soft one, termination, too much output. release is to be called when it has ended.
func (p *program) prepare(ctx context.Context, r *protocol.Request) (cmd *exec.Cmd, release func(), err error) {
	var words []string
	for _, t := range p.command[1:] {
		word, err := t.fill(r, nil)
		if err != nil {
			return nil, nil, err
		}
		words = append(words, word)
	}
	if p.Input == inputArguments {
		more, err := arguments(r)
		if err != nil {
			return nil, nil, err
		}
		words = append(words, more...)
	}
	cmd = exec.CommandContext(ctx, p.path, words...)
	cmd.Dir = p.Dir
	if cmd.Env, err = p.environment(r); err != nil {
		return nil, nil, err
	}
	if p.Input == inputJSON {
		text, err := call(r)
		if err != nil {
			return nil, nil, err
		}
		cmd.Stdin = bytes.NewReader(text)
	}
	cmd.SysProcAttr = programAttributes()
	patience := p.patience()
	cmd.WaitDelay = patience
	var givenUp <-chan struct{} // ctx may be done before, by a soft limit
	if info, ok := task.FromContext(ctx); ok {
		givenUp = info.GivenUp
	}
	ended := make(chan struct{})
	var waiting sync.WaitGroup
	cmd.Cancel = func() error {
		if cause := context.Cause(ctx); errors.Is(cause, errOutput) || errors.Is(cause, task.ErrTimeLimit) || errors.Is(cause, task.ErrRevoked) {
			return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		waiting.Go(func() {
			limit := time.NewTimer(patience)
			defer limit.Stop()
			select {
			case <-limit.C:
			case <-givenUp:
			case <-ended:
				return
			}
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		})
		return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
	}
	return cmd, func() { close(ended); waiting.Wait() }, nil
}

// patience is the time between SIGTERM and SIGKILL: no longer than the hard limit comes after the soft one.
func (p *program) patience() time.Duration {
	patience := time.Duration(p.KillAfter)
	if between := time.Duration(p.TimeLimit - p.SoftTimeLimit); p.SoftTimeLimit > 0 && p.TimeLimit > 0 {
		patience = min(patience, max(between, time.Millisecond))
	}
	return patience
}

// arguments are a call's values as words of a command line: the positional ones in order, then --name=value.
func arguments(r *protocol.Request) ([]string, error) {
	var words []string
	for _, v := range r.Args {
		text, err := plain(v)
		if err != nil {
			return nil, err
		}
		words = append(words, text)
	}
	for _, name := range sortedKeywords(r) {
		text, err := plain(r.Kwargs[name])
		if err != nil {
			return nil, err
		}
		if strings.ContainsAny(name, "=\x00") || strings.HasPrefix(name, "-") {
			return nil, task.AsPython(fmt.Errorf("the keyword %q cannot be an option", name), "builtins", "TypeError")
		}
		words = append(words, "--"+name+"="+text)
	}
	return words, nil
}

// environment is the whole environment of a call: PATH, HOME, LANG, TZ and TMPDIR of the worker and what inherit_env
// names, what env says, and the call. Nothing else of the worker's, which may hold passwords.
func (p *program) environment(r *protocol.Request) ([]string, error) {
	var env []string
	for _, name := range append([]string{"PATH", "HOME", "LANG", "TZ", "TMPDIR"}, p.InheritEnv...) {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	for name, t := range p.env {
		v, err := t.fill(r, nil)
		if err != nil {
			return nil, err
		}
		env = append(env, name+"="+v)
	}
	env = append(env, "TASK_ID="+r.ID, "TASK_NAME="+r.Task, "TASK_RETRIES="+strconv.Itoa(r.Retries))
	if p.Input != inputEnvironment {
		return clean(env)
	}
	for i, v := range r.Args {
		text, err := plain(v)
		if err != nil {
			return nil, err
		}
		env = append(env, "TASK_ARG_"+strconv.Itoa(i)+"="+text)
	}
	for _, name := range sortedKeywords(r) {
		text, err := plain(r.Kwargs[name])
		if err != nil {
			return nil, err
		}
		env = append(env, "TASK_KWARG_"+variable(name)+"="+text)
	}
	return clean(env)
}

// clean refuses what no environment can hold.
func clean(env []string) ([]string, error) {
	if slices.ContainsFunc(env, func(v string) bool { return strings.ContainsRune(v, 0) }) {
		return nil, task.AsPython(errors.New("an argument contains a NUL character"), "builtins", "ValueError")
	}
	return env, nil
}

// variable is a keyword's name as that of a variable: upper case, with _ for what is neither letter nor digit.
func variable(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
}

// outcome turns what the program did into a result or an error.
func (p *program) outcome(ctx context.Context, cmd *exec.Cmd, out *bounded, d *diagnostics, err error) (any, error) {
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case errors.Is(context.Cause(ctx), errOutput):
		return nil, p.failure(cmd, d, -int(syscall.SIGKILL), fmt.Sprintf("its output is larger than %d bytes (max_output)", p.MaxOutput))
	case context.Cause(ctx) != nil && (err != nil || cmd.ProcessState == nil):
		return nil, fmt.Errorf("%s was ended: %w%s", cmd.Path, context.Cause(ctx), d.said())
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return p.result(cmd, out, d, 0)
	case !exited: // it did not start
		return nil, task.AsPython(fmt.Errorf("the program does not start: %w", err), "builtins", startError(err))
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return nil, p.failure(cmd, d, -int(status.Signal()), "ended by signal "+status.Signal().String())
	}
	return p.result(cmd, out, d, exit.ExitCode())
}

func startError(err error) string {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, exec.ErrNotFound):
		return "FileNotFoundError"
	case errors.Is(err, os.ErrPermission):
		return "PermissionError"
	}
	return "OSError"
}

func (p *program) result(cmd *exec.Cmd, out *bounded, d *diagnostics, code int) (any, error) {
	if then := choose(p.exit, code); then != success {
		return nil, conclude(then, p.failure(cmd, d, code, "exit code "+strconv.Itoa(code)), 0)
	}
	v, err := decodeOutput(p.Output, out.kept)
	if err != nil {
		return nil, task.AsPython(fmt.Errorf("%s: its output is not what output: %s says: %w", cmd.Path, p.Output, err), "builtins", "ValueError")
	}
	return v, nil
}

// failure is Python's CalledProcessError(returncode, cmd, output, stderr), which a Python client gets back as that.
func (p *program) failure(cmd *exec.Cmd, d *diagnostics, code int, what string) error {
	return task.AsPython(fmt.Errorf("%s: %s%s", cmd.Path, what, d.said()), "subprocess", "CalledProcessError",
		int64(code), p.Command[0], nil, d.tail())
}
