package scheduler

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gelery/gelery/protocol/serialization"
)

// LocalConfig says where a local store has its entries from.
type LocalConfig struct {
	Entries []*Entry // of the program
	Files   []string // of entries, see [NewFile]; they are read again when they change. Of two of a name the later one counts
	// StateFile keeps over a restart what became of entries, and lets one beat at a time lead on this machine. "": nothing is
	// kept, and the beat does not know of others. Celery's beat_schedule_filename.
	StateFile string
	Zone      *time.Location // of what files say; nil: UTC
	Logger    *slog.Logger   // nil: slog's default
}

// Local is a store on one machine: entries of the program and of files, and a file with what became of them. It takes the place
// of Celery's PersistentScheduler. What it cannot read of a file it reports, and goes on with what it had of it.
type Local struct {
	config LocalConfig
	log    *slog.Logger
	change chan struct{} // capacity 1

	mu      sync.Mutex
	table   *Table
	files   []*File
	read    [][]*Entry // of each file, as it was read last
	wrong   [][]error  // of single entries, of each file as it was read last; or of the file itself
	state   *stateFile
	looked  time.Time
	leading bool
}

// ErrFile is what [Local.Entries] says of a file that cannot be read, beside the entries of the others.
var ErrFile = errors.New("a file of entries cannot be read")

// fileInterval is how often files are looked at.
const fileInterval = time.Second

// lockInterval is how often a standby tries to lead.
const lockInterval = time.Second

// NewLocal makes a local store. Two entries of the program of one name, and entries that cannot be, are errors; those of files
// are reported, and the others kept.
func NewLocal(c LocalConfig) (*Local, error) {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	l := &Local{config: c, log: c.Logger, table: NewTable(), change: make(chan struct{}, 1)}
	names := map[string]bool{}
	for _, e := range c.Entries {
		if err := e.Check(); err != nil {
			return nil, err
		}
		if names[e.Name] {
			return nil, &EntryError{e.Name, "name", errors.New("there are two of it")}
		}
		names[e.Name] = true
	}
	for _, path := range c.Files {
		l.files = append(l.files, NewFile(path, c.Zone))
	}
	l.read, l.wrong = make([][]*Entry, len(l.files)), make([][]error, len(l.files))
	return l, l.refresh(time.Now())
}

// refresh reads the state, unless this store's beat leads, and the files.
func (l *Local) refresh(now time.Time) error {
	if !l.leading {
		l.state = &stateFile{log: l.log, kept: map[string]kept{}, pending: map[string]Run{}}
		if l.config.StateFile != "" {
			var err error
			if l.state, err = readState(l.config.StateFile, l.log); err != nil {
				return err
			}
		}
		l.table = NewTable()
	}
	l.looked = now
	l.readFiles()
	return l.settle(now)
}

// readFiles reads the files that changed.
func (l *Local) readFiles() {
	for i, f := range l.files {
		if !f.Changed() {
			continue
		}
		entries, wrong, err := f.Read()
		if err != nil {
			l.log.Error("beat: a file of entries cannot be read; what it said before goes on", "error", err)
			l.wrong[i] = []error{fmt.Errorf("%w: %w", ErrFile, err)}
			continue
		}
		for _, w := range wrong {
			l.log.Error("beat: an entry cannot be read", "file", f.path, "error", w)
			var of *EntryError
			if errors.As(w, &of) {
				if j := slices.IndexFunc(l.read[i], func(e *Entry) bool { return e.Name == of.Entry }); j >= 0 {
					l.log.Warn("beat: the entry goes on as it was", "entry", of.Entry)
					entries = append(entries, l.read[i][j])
				}
			}
		}
		if l.read[i] != nil {
			l.log.Info("beat: a file of entries was read again", "file", f.path, "entries", len(entries))
		}
		l.read[i] = entries
		if l.read[i] == nil {
			l.read[i] = []*Entry{}
		}
		l.wrong[i] = wrong
	}
}

// changed is when a file was changed last, at most now: what is new in it counts from then on. It was not there at the look before, however
// old the file is that was moved into its place.
func (l *Local) changed(before, now time.Time) time.Time {
	last := before
	for _, f := range l.files {
		if f.seen != nil && f.seen.ModTime().After(last) {
			last = f.seen.ModTime()
		}
	}
	if last.IsZero() || last.After(now) {
		return now
	}
	return last
}

// settle puts the entries of all sources into the table and takes out those that are gone. What is new, or goes on after a pause, is
// sent at its next moment.
func (l *Local) settle(now time.Time) error {
	there := map[string]bool{}
	fresh := map[string]kept{}
	put := func(e *Entry, source string, fixed bool) {
		if there[e.Name] {
			return
		}
		there[e.Name] = true
		before, had := l.table.Get(e.Name)
		if had && before.Entry == e {
			return
		}
		k, known := l.state.kept[e.Name]
		defined := e.Paused
		if k.done != "" && k.done == fingerprint(e) {
			paused := *e
			paused.Paused = true
			e = &paused
		}
		resumed := (k.paused || had && before.Entry.Paused) && !e.Paused
		if !known || resumed {
			k.LastRunAt, k.done = now, ""
		}
		if !known || resumed || k.paused != defined {
			k.paused = defined
			fresh[e.Name] = k
		}
		l.table.Set(Record{Entry: e, State: k.State, Source: source, Fixed: fixed})
	}
	for i := len(l.files) - 1; i >= 0; i-- {
		for _, e := range l.read[i] {
			put(e, l.files[i].path, false)
		}
	}
	for _, e := range l.config.Entries {
		put(e, "program", true)
	}
	var gone []string
	for r := range l.table.All() {
		if !there[r.Entry.Name] {
			gone = append(gone, r.Entry.Name)
		}
	}
	for _, name := range gone {
		l.table.Remove(name)
	}
	if l.leading {
		maps.DeleteFunc(l.state.kept, func(name string, _ kept) bool { return !there[name] })
	}
	return l.state.write(fresh, nil, nil, false)
}

// fingerprint tells two definitions apart.
func fingerprint(e *Entry) string {
	d, err := e.Definition()
	if err != nil { // of the program: it is what the program says
		return "program"
	}
	text, err := serialization.AppendJSON(nil, d)
	if err != nil {
		return "program"
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// Lead is [Store]'s. With a state file it waits until no other process has it.
func (l *Local) Lead(ctx context.Context) (Lease, error) {
	unlock := func() {}
	if path := l.config.StateFile; path != "" {
		for told := false; ; told = true {
			release, taken, err := tryLock(path + ".lock")
			if err != nil {
				return nil, fmt.Errorf("state file: %w", err)
			}
			if !taken {
				unlock = release
				break
			}
			if !told {
				l.log.Info("beat: another one leads with this state file; standing by", "file", path)
			}
			timer := time.NewTimer(lockInterval)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return nil, ctx.Err()
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leading {
		unlock()
		return nil, errors.New("this store leads already")
	}
	err := l.refresh(time.Now())
	if err == nil && l.config.StateFile != "" {
		err = l.state.open()
	}
	if err != nil {
		unlock()
		return nil, err
	}
	l.leading = true
	return &localLease{l, unlock}, nil
}

// Entries is [Store]'s. Of an entry that a file defines wrongly there is the error, and of a file that cannot be read an [ErrFile].
func (l *Local) Entries(context.Context) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		l.mu.Lock()
		err := l.refresh(time.Now())
		all, wrong := slices.Collect(l.table.All()), slices.Concat(l.wrong...)
		l.mu.Unlock()
		if err != nil {
			yield(Record{}, err)
			return
		}
		for _, w := range wrong {
			if !yield(Record{}, w) {
				return
			}
		}
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// Entry is [Store]'s.
func (l *Local) Entry(_ context.Context, name string) (Record, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refresh(time.Now()); err != nil {
		return Record{}, err
	}
	r, ok := l.table.Get(name)
	if !ok {
		return Record{}, l.missing(name)
	}
	return r, nil
}

// missing tells why there is no entry of a name: it cannot be read, or nothing defines it.
func (l *Local) missing(name string) error {
	for _, wrong := range l.wrong {
		if i := wrongOf(wrong, name); i >= 0 {
			return wrong[i]
		}
		if len(wrong) > 0 && errors.Is(wrong[0], ErrFile) && !errors.Is(wrong[0], fs.ErrNotExist) {
			return wrong[0] // it may be in there
		}
	}
	return ErrNoEntry
}

// wrongOf finds what is wrong with an entry; -1: nothing.
func wrongOf(wrong []error, name string) int {
	return slices.IndexFunc(wrong, func(err error) bool {
		var of *EntryError
		return errors.As(err, &of) && of.Entry == name
	})
}

// Put is [Store]'s: it writes into the file that has the entry, a new one into the last file.
func (l *Local) Put(_ context.Context, entries ...*Entry) error {
	definitions := make([]map[string]any, len(entries))
	for i, e := range entries {
		if err := e.Check(); err != nil {
			return err
		}
		var err error
		if definitions[i], err = e.Definition(); err != nil {
			return err
		}
	}
	return l.edit(func() error {
		edits := map[*File]map[string]map[string]any{}
		for i, e := range entries {
			file, _, err := l.fileOf(e.Name)
			if err != nil {
				return err
			}
			if edits[file] == nil {
				edits[file] = map[string]map[string]any{}
			}
			edits[file][e.Name] = definitions[i]
		}
		for _, file := range l.files {
			if err := file.edit(edits[file]); err != nil {
				return err
			}
		}
		return nil
	})
}

// Pause is [Store]'s.
func (l *Local) Pause(_ context.Context, name string, paused bool) error {
	return l.edit(func() error {
		f, e, err := l.fileOf(name)
		if err != nil {
			return err
		}
		if e == nil {
			return l.missing(name)
		}
		changed := *e
		changed.Paused = paused
		definition, err := changed.Definition()
		if err != nil {
			return err
		}
		return f.pause(name, paused, definition)
	})
}

// Remove is [Store]'s. The entry need not be readable.
func (l *Local) Remove(_ context.Context, name string) error {
	return l.edit(func() error {
		f, _, err := l.fileOf(name)
		if err != nil {
			return err
		}
		return f.edit(map[string]map[string]any{name: nil})
	})
}

// fileOf is the file that an entry is in, or would be, and the entry if it can be read.
func (l *Local) fileOf(name string) (file *File, entry *Entry, err error) {
	for i, f := range l.files {
		if j := slices.IndexFunc(l.read[i], func(e *Entry) bool { return e.Name == name }); j >= 0 {
			file, entry = f, l.read[i][j]
		} else if wrongOf(l.wrong[i], name) >= 0 {
			file, entry = f, nil
		}
	}
	if r, ok := l.table.Get(name); ok && file == nil && r.Fixed {
		return nil, nil, ErrFixed
	}
	if file == nil && len(l.files) > 0 {
		file = l.files[len(l.files)-1]
	}
	if file == nil {
		return nil, nil, fmt.Errorf("%w: there is no file of entries", ErrFixed)
	}
	return file, entry, nil
}

// edit changes files of entries, as they are now.
func (l *Local) edit(change func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.refresh(time.Now()); err != nil {
		return err
	}
	if err := change(); err != nil {
		return err
	}
	l.looked = l.looked.Add(-fileInterval) // it is time to look again
	select {
	case l.change <- struct{}{}:
	default:
	}
	return nil
}

// Close is [Store]'s. The lease must have been released.
func (l *Local) Close() error { return nil }
