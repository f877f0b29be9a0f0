package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
)

// Place is where measured processes run, and what is kept of them. The zero value: anywhere, on all cores.
type Place struct {
	Core    string // to pin to; "": none
	Procs   int    // GOMAXPROCS; 0: the default
	Profile string // folder for CPU profiles; "": none
}

// CanPin tells whether Pin can do what it is for: there is taskset, and more than one core.
func CanPin() bool {
	_, err := exec.LookPath("taskset")
	return err == nil && runtime.NumCPU() > 1
}

// Pin is the command that pins what follows to a core; nothing for core "".
func Pin(core string) []string {
	if core == "" {
		return nil
	}
	return []string{"taskset", "-c", core}
}

// Process is a running side, as its parent sees it.
type Process struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	reports *bufio.Reader
}

// Start runs a side.
func (at Place) Start(ctx context.Context, o Order) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if at.Profile != "" {
		if err := os.MkdirAll(at.Profile, 0o755); err != nil {
			return nil, err
		}
		o.Profile = profileName(at.Profile, o)
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	command := append(Pin(at.Core), self)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), orderVariable+"="+string(text))
	if at.Procs > 0 {
		cmd.Env = append(cmd.Env, "GOMAXPROCS="+strconv.Itoa(at.Procs))
	}
	cmd.Stderr = os.Stderr
	p := &Process{cmd: cmd}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.reports = bufio.NewReader(stdout)
	return p, cmd.Start()
}

// Pid is the side's process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Next waits for the side's next report.
func (p *Process) Next() (r Report, err error) {
	line, err := p.reports.ReadBytes('\n')
	if err != nil {
		return r, fmt.Errorf("side ended without a report: %w", err)
	}
	return r, json.Unmarshal(line, &r)
}

// Stop tells the side to end and waits for it.
func (p *Process) Stop() error {
	_ = p.stdin.Close()
	return p.cmd.Wait()
}

// Produce runs a side that ends by itself and returns its only report.
func (at Place) Produce(ctx context.Context, o Order) (Report, error) {
	p, err := at.Start(ctx, o)
	if err != nil {
		return Report{}, err
	}
	r, err := p.Next()
	return r, errors.Join(err, p.Stop())
}
