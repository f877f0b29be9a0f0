//go:build unix

package interop

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// Driver is a Python process that acts as a Celery client on command (python/driver.py). It does one thing at a time;
// callers may be many.
type Driver struct {
	*Process
	Versions Answer // what hello said

	mu      sync.Mutex
	stdin   io.Writer
	answers <-chan []byte // closed when the process has nothing more to say
}

// Command is what the driver is told; python/driver.py explains each.
type Command struct {
	Op       string         `json:"op"`
	ID       string         `json:"id,omitempty"`
	Task     string         `json:"task,omitempty"`
	Args     []any          `json:"args,omitempty"`
	Kwargs   map[string]any `json:"kwargs,omitempty"`
	Set      string         `json:"set,omitempty"`
	Via      string         `json:"via,omitempty"`
	Options  map[string]any `json:"options,omitempty"`
	Tuple    any            `json:"tuple,omitempty"`
	Protocol int            `json:"protocol,omitempty"`
	Record   bool           `json:"record,omitempty"`
	Timeout  float64        `json:"timeout,omitempty"` // seconds

	Expression string          `json:"expression,omitempty"` // of a workflow
	Signature  json.RawMessage `json:"signature,omitempty"`
}

// Answer is what the driver says.
type Answer struct {
	OK    bool   `json:"ok"`
	Kind  string `json:"kind"`  // the exception's class, when not OK
	Error string `json:"error"` // and its text

	ID        string           `json:"id"`
	State     string           `json:"state"`
	States    []string         `json:"states"` // all of them, when recorded
	Value     json.RawMessage  `json:"value"`  // the result, when it is plain JSON and short
	Got       string           `json:"got"`    // Python's repr of it
	Want      string           `json:"want"`
	Equal     bool             `json:"equal"`
	Exception *PythonException `json:"exception"`
	Traceback string           `json:"traceback"`

	Celery string `json:"celery"`
	Kombu  string `json:"kombu"`
	Redis  string `json:"redis"`
	Python string `json:"python"`
}

// PythonException is an exception as Python has rebuilt it from a stored result.
type PythonException struct {
	Type   string   `json:"type"`
	Module string   `json:"module"`
	Bases  []string `json:"bases"` // class names of its method resolution order
	Args   []any    `json:"args"`
}

// StartDriver starts a Python client.
func (v Version) StartDriver(t testing.TB, s Settings) *Driver {
	t.Helper()
	return v.startDriver(t, v.Command(t, s, "python", "driver.py"))
}

func (v Version) startDriver(t testing.TB, cmd *exec.Cmd) *Driver {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	lines, stdout := io.Pipe()
	cmd.Stdout = stdout
	answers := make(chan []byte)
	p := Start(t, "celery-"+v.Name+"-driver", cmd)
	d := &Driver{Process: p, stdin: stdin, answers: answers}
	go func() { // ends with the process
		<-p.Exited()
		_ = stdout.Close()
	}()
	go func() {
		defer close(answers)
		r := bufio.NewReader(lines)
		for {
			line, err := r.ReadBytes('\n')
			if err != nil {
				return
			}
			select {
			case answers <- line:
			case <-p.Exited():
				return
			}
		}
	}()
	d.Versions = d.Do(t, Command{Op: "hello"})
	return d
}

// Do runs a command and returns the answer. An answer that is not OK is the caller's to judge; no answer fails the test.
func (d *Driver) Do(t testing.TB, c Command) Answer {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	a, err := d.do(c)
	if err != nil {
		t.Fatalf("%s: %s: %v", d.Name, c.Op, err)
	}
	return a
}

func (d *Driver) do(c Command) (a Answer, err error) {
	line, err := json.Marshal(c)
	if err != nil {
		return a, err
	}
	if _, err := d.stdin.Write(append(line, '\n')); err != nil {
		return a, err
	}
	timer := time.NewTimer(time.Duration(c.Timeout*float64(time.Second)) + time.Minute)
	defer timer.Stop()
	select {
	case line, ok := <-d.answers:
		if !ok {
			return a, fmt.Errorf("it ended: %w", io.ErrUnexpectedEOF)
		}
		return a, json.Unmarshal(line, &a)
	case <-timer.C:
		d.Kill() // an answer that comes late would be taken for the next one
		return a, fmt.Errorf("no answer in a minute")
	}
}
