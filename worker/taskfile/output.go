package taskfile

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/task"
)

// bounded keeps what is written to it, up to a size; full is called when that is passed. The buffer is not embedded: its
// ReadFrom would read without a bound.
type bounded struct {
	kept []byte
	most int
	full func()
}

// Write implements io.Writer. It takes everything, so that the writer is ended by full and not by an error.
func (b *bounded) Write(p []byte) (int, error) {
	if len(b.kept)+len(p) > b.most {
		b.full()
		return len(p), nil
	}
	b.kept = append(b.kept, p...)
	return len(p), nil
}

// decodeOutput reads a result.
func decodeOutput(form string, data []byte) (any, error) {
	switch form {
	case none:
		return nil, nil
	case outputText:
		if !utf8.Valid(data) {
			return nil, errors.New("it is not UTF-8")
		}
		return strings.TrimSuffix(string(data), "\n"), nil
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	return serialization.DecodeJSON(data)
}

const (
	tailSize   = 4 << 10 // of standard error, for the failure
	lineSize   = 1 << 10
	mostLogged = 100 // lines of one run
)

// diagnostics takes a program's standard error: its lines go to the log, and its end into the failure.
type diagnostics struct {
	log func(line string)

	mu     sync.Mutex
	kept   []byte
	line   []byte
	logged int
}

func newDiagnostics(ctx context.Context) *diagnostics {
	log := task.Logger(ctx)
	return &diagnostics{log: func(line string) { log.Warn(line) }}
}

// Write implements io.Writer.
func (d *diagnostics) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept = append(d.kept, p[max(0, len(p)-tailSize):]...)
	if over := len(d.kept) - tailSize; over > 0 {
		d.kept = append(d.kept[:0], d.kept[over:]...)
	}
	for rest := p; len(rest) > 0; {
		line, after, ends := bytes.Cut(rest, []byte{'\n'})
		d.line = append(d.line, line[:min(len(line), lineSize-len(d.line))]...)
		rest = after
		if ends {
			d.emit()
		}
	}
	return len(p), nil
}

// emit logs the line at hand. The caller holds mu.
func (d *diagnostics) emit() {
	switch d.logged++; {
	case d.logged < mostLogged && len(d.line) > 0:
		d.log(strings.ToValidUTF8(string(d.line), "\uFFFD"))
	case d.logged == mostLogged:
		d.log("more lines of this run are not logged")
	}
	d.line = d.line[:0]
}

// flush logs a last line without its end.
func (d *diagnostics) flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.line) > 0 {
		d.emit()
	}
}

func (d *diagnostics) tail() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.ToValidUTF8(string(d.kept), "\uFFFD")
}

// said is the tail as a part of an error's text.
func (d *diagnostics) said() string {
	text := strings.TrimSpace(d.tail())
	if text == "" {
		return ""
	}
	return "; it said: " + text
}
