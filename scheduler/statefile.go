package scheduler

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/gelery/gelery/internal/atomicfile"
	"github.com/gelery/gelery/internal/shelve"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/task"
)

// stateFile keeps what became of entries, in lines of JSON: a snapshot that replaces the file whole, and behind it what came
// since. A line that a crash has torn is as if it had not been written.
type stateFile struct {
	path    string
	log     *slog.Logger
	file    *os.File // nil: only read
	size    int64    // of what is written whole
	lines   int      // since the snapshot
	bad     int      // lines that could not be read
	kept    map[string]kept
	pending map[string]Run // by id
}

// kept is what the file says of an entry.
type kept struct {
	State
	done   string // the fingerprint of the definition that has done what it was for; "": it has not
	paused bool   // by its definition, when a beat saw it last
}

// stateLine is one line; which fields there are tells what it is.
type stateLine struct {
	Version int             `json:"gelery_beat,omitempty"`
	Name    string          `json:"name,omitempty"`
	Last    time.Time       `json:"last_run_at,omitzero"`
	Count   int64           `json:"total_run_count,omitempty"`
	Done    string          `json:"done,omitempty"`
	Paused  bool            `json:"paused,omitempty"`
	Run     json.RawMessage `json:"run,omitempty"`  // marked, see runText
	Sent    []string        `json:"sent,omitempty"` // ids of runs
}

const (
	stateVersion = 1
	// mostLines is how many lines may follow a snapshot before the next one, beside four for each entry.
	mostLines = 10_000
)

// readState reads a state file, which need not be there. What cannot be read is left out.
func readState(path string, log *slog.Logger) (*stateFile, error) {
	s := &stateFile{path: path, log: log, kept: map[string]kept{}, pending: map[string]Run{}}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state file: %w", err)
	}
	if shelve.Is(data) {
		return nil, fmt.Errorf("state file: %s is a shelve, as celery beat's own is; give Gelery a file of its own", path)
	}
	for first := true; ; first = false {
		line, rest, whole := bytes.Cut(data, []byte{'\n'})
		if !whole { // torn, or the end
			if first && len(data) > 0 { // not so the header: it comes with the snapshot, and that whole
				s.bad++
			}
			break
		}
		if data = rest; !s.take(line, first) {
			s.bad++
		}
	}
	return s, nil
}

// take takes in a line.
func (s *stateFile) take(line []byte, first bool) bool {
	var l stateLine
	if err := json.Unmarshal(line, &l); err != nil || first != (l.Version == stateVersion) {
		return false
	}
	switch {
	case first:
	case l.Name != "":
		s.kept[l.Name] = kept{State{l.Last, l.Count}, l.Done, l.Paused}
	case l.Run != nil:
		r, err := ParseRun(l.Run)
		if err != nil {
			return false
		}
		s.pending[r.ID] = r
	default:
		for _, id := range l.Sent {
			delete(s.pending, id)
		}
	}
	return true
}

// open begins to write, with a snapshot. A file that has lines which cannot be read is set aside.
func (s *stateFile) open() error {
	s.close()
	if s.bad > 0 {
		aside := s.path + ".corrupt-" + time.Now().UTC().Format("20060102T150405.000000")
		s.log.Error("beat: the state file has lines that cannot be read; it is set aside, and they are not known", "file", s.path, "aside", aside, "lines", s.bad)
		// A copy: a crash before the snapshot is there leaves the file as it was.
		data, err := os.ReadFile(s.path)
		if err == nil {
			err = atomicfile.Replace(aside, data)
		}
		if err != nil {
			return fmt.Errorf("state file: %w", err)
		}
		s.bad = 0
	}
	b := appendLine(nil, stateLine{Version: stateVersion})
	for name, k := range s.kept {
		b = appendKept(b, name, k)
	}
	for _, r := range s.pending {
		var err error
		if b, err = appendRunLine(b, &r); err != nil {
			return err
		}
	}
	err := atomicfile.Replace(s.path, b)
	if err == nil {
		s.file, err = os.OpenFile(s.path, os.O_WRONLY, 0)
	}
	if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	s.size, s.lines = int64(len(b)), 0
	return nil
}

// close ends writing.
func (s *stateFile) close() {
	if s.file != nil {
		_ = s.file.Close()
		s.file = nil
	}
}

// write notes what became of entries, which runs are about to be sent and which are. With lasting it returns when the disk
// has it.
func (s *stateFile) write(entries map[string]kept, runs []Run, sent []string, lasting bool) error {
	if s.file != nil {
		if err := s.append(entries, runs, sent, lasting); err != nil {
			return fmt.Errorf("state file: %w", err)
		}
	}
	for name, k := range entries {
		s.kept[name] = k
	}
	for _, r := range runs {
		s.pending[r.ID] = r
	}
	for _, id := range sent {
		delete(s.pending, id)
	}
	if s.file != nil && s.lines > mostLines+4*len(s.kept) {
		return s.open()
	}
	return nil
}

// append writes lines behind those that are there.
func (s *stateFile) append(entries map[string]kept, runs []Run, sent []string, lasting bool) (err error) {
	var b []byte
	for name, k := range entries {
		b = appendKept(b, name, k)
	}
	for _, r := range runs {
		if b, err = appendRunLine(b, &r); err != nil {
			return err
		}
	}
	if len(sent) > 0 {
		b = appendLine(b, stateLine{Sent: sent})
	}
	if _, err = s.file.WriteAt(b, s.size); err == nil && lasting {
		err = s.file.Sync()
	}
	if err != nil {
		return errors.Join(err, s.file.Truncate(s.size))
	}
	s.size += int64(len(b))
	s.lines += len(entries) + len(runs) + 1
	return nil
}

func appendLine(b []byte, l stateLine) []byte {
	text, err := json.Marshal(l)
	if err != nil { // it holds texts, numbers and JSON
		panic(err)
	}
	return append(append(b, text...), '\n')
}

func appendKept(b []byte, name string, k kept) []byte {
	return appendLine(b, stateLine{Name: name, Last: k.LastRunAt, Count: k.TotalRunCount, Done: k.done, Paused: k.paused})
}

// appendRunLine is appendLine of a run: there are many of them, and each is encoded once.
func appendRunLine(b []byte, r *Run) (_ []byte, err error) {
	if b, err = r.append(append(b, `{"run":`...)); err != nil {
		return nil, err
	}
	return append(b, "}\n"...), nil
}

// runText is a run as stores keep it.
type runText struct {
	Entry  string          `json:"entry"`
	ID     string          `json:"id"`
	Moment time.Time       `json:"moment"`
	Number int64           `json:"number"`
	Until  time.Time       `json:"until,omitzero"`
	Task   json.RawMessage `json:"task"`
}

// MarshalJSON writes the run as [ParseRun] reads it.
func (r Run) MarshalJSON() ([]byte, error) { return r.append(nil) }

func (r *Run) append(b []byte) ([]byte, error) {
	wire, err := r.Task.Wire()
	if err != nil {
		return nil, err
	}
	text := map[string]any{
		"entry": r.Entry, "id": r.ID, "moment": r.Moment.UTC().Format(time.RFC3339Nano), "number": r.Number, "task": wire.Value(),
	}
	if !r.Until.IsZero() {
		text["until"] = r.Until.UTC().Format(time.RFC3339Nano)
	}
	return serialization.AppendJSON(b, text)
}

// ParseRun reads a run.
func ParseRun(text []byte) (Run, error) {
	var t runText
	if err := json.Unmarshal(text, &t); err != nil {
		return Run{}, err
	}
	v, err := serialization.DecodeJSON(t.Task)
	if err != nil {
		return Run{}, err
	}
	wire, err := protocol.SignatureFromValue(v)
	if err != nil {
		return Run{}, err
	}
	return Run{Entry: t.Entry, ID: t.ID, Moment: t.Moment, Number: t.Number, Until: t.Until, Task: task.SignatureOf(wire)}, nil
}
