package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
)

// TestRepaint: the last picture stays until the next is there, which has the form of a terminal.
func TestRepaint(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	a := &app{stdout: &out, stderr: &errs}
	no := errors.New("no")
	err := a.repaint(t.Context(), func() error {
		fmt.Fprint(a.stderr, "told")
		if err := output("").table(a.stdout, []string{"NODE"}, [][]string{{"w1"}}); err != nil {
			return err
		}
		if out.Len()+errs.Len() > 0 {
			t.Errorf("before it is done %q, %q are shown", &out, &errs)
		}
		return no
	})
	if !errors.Is(err, no) || out.String() != "\x1b[H\x1b[JNODE\nw1\n" || errs.String() != "told" || a.stdout != &out || a.stderr != &errs {
		t.Errorf("%q and %q are shown, %v", &out, &errs, err)
	}
	ended, end := context.WithCancel(t.Context())
	shown := out.String()
	err = a.repaint(ended, func() error { // an interrupt leaves what was there
		end()
		return ended.Err()
	})
	if !errors.Is(err, context.Canceled) || out.String() != shown {
		t.Errorf("%q is shown, %v", &out, err)
	}
}
