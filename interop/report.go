//go:build unix

package interop

import (
	"fmt"
	"os"
	"testing"
)

// Directions a message or result crosses in.
const (
	PythonToGo = "python-to-go"
	GoToPython = "go-to-python"
)

// Crossing is what a cell compares: messages and results between Go and one Celery version, over one stack, in one
// direction.
type Crossing struct {
	Version
	Stack
	Direction string
}

// To is the same crossing in another direction.
func (c Crossing) To(direction string) Crossing {
	c.Direction = direction
	return c
}

// Cell runs one comparison as a subtest and enters it in the report. A cell that -run filters out is not entered. f
// must not call t.Parallel: the cell would be entered before it ran.
func (c Crossing) Cell(t *testing.T, name string, f func(t *testing.T)) bool {
	t.Helper()
	ran, skipped := false, false
	ok := t.Run(name, func(t *testing.T) {
		ran = true
		defer func() { skipped = t.Skipped() }() // also when f ends by FailNow or SkipNow
		f(t)
	})
	if !ran {
		return ok
	}
	outcome := "pass"
	switch {
	case !ok:
		outcome = "fail"
	case skipped:
		outcome = "skip"
	}
	if err := enter(fmt.Sprintf("%s\t%s\t%s: %s\t%s\n", c.Name, c.Direction, c.Stack, name, outcome)); err != nil {
		t.Errorf("interop report: %v", err)
	}
	return ok
}

// enter adds a line to the report, in one write: parallel tests and test processes share the file.
func enter(line string) error {
	path := os.Getenv("GELERY_INTEROP_REPORT")
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.WriteString(line); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
