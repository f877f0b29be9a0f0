package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/gelery/gelery/internal/atomicfile"
	"github.com/gelery/gelery/internal/shelve"
	"github.com/gelery/gelery/transport"
)

// stateVersion is the version of the state file's form.
const stateVersion = 1

// maxStateFile bounds what is read of a state file, in bytes.
const maxStateFile = 256 << 20

// stateFile is the content of Config.StateFile.
type stateFile struct {
	Version int                  `json:"version"`
	Clock   int64                `json:"clock"`
	Revoked map[string]time.Time `json:"revoked"`
	Stamps  map[string]time.Time `json:"revoked_stamps,omitempty"`
}

// loadState takes in what the state file says. A file that cannot be read as one is set aside, because a worker that does
// not start is worse than one that has forgotten; but a Python worker's is not touched: its name must be a mistake.
func (w *Worker) loadState() error {
	path := w.config.StateFile
	if path == "" || IsChild() {
		return nil
	}
	b, err := readState(path)
	if errors.Is(err, os.ErrNotExist) {
		if err = w.saveState(); err == nil { // a place where nothing can be written is found out now
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("worker config: StateFile: %w", err)
	}
	if shelve.Is(b) {
		return fmt.Errorf("worker config: StateFile: %s is the state of a Python worker (a shelve); give Gelery a file of its own", path)
	}
	var s stateFile
	if err := json.Unmarshal(b, &s); err != nil || s.Version != stateVersion {
		if err == nil {
			err = fmt.Errorf("its version is %d, not %d", s.Version, stateVersion)
		}
		aside := path + ".corrupt-" + time.Now().UTC().Format("20060102T150405.000000")
		w.log.Error("the state file cannot be read; it is set aside, and what it says is not known", "file", path, "aside", aside, "error", err)
		if err := os.Rename(path, aside); err != nil {
			return fmt.Errorf("worker config: StateFile: %w", err)
		}
		return nil
	}
	w.clock.Store(min(max(s.Clock, 0), maxClock))
	for set, members := range map[string]map[string]time.Time{transport.RevokedSet: s.Revoked, transport.RevokedStampsSet: s.Stamps} {
		list := make([]revocation, 0, len(members))
		for m, at := range members {
			list = append(list, revocation{m, at})
		}
		w.revoked.add(set, list, false)
	}
	return nil
}

func readState(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	b, err := io.ReadAll(io.LimitReader(f, maxStateFile+1))
	if err == nil && len(b) > maxStateFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxStateFile)
	}
	return b, err
}

// saveState writes the state file: beside it first, and then in its place.
func (w *Worker) saveState() error {
	path := w.config.StateFile
	if path == "" {
		return nil
	}
	s := stateFile{Version: stateVersion, Clock: w.clock.Load()}
	w.revoked.mu.RLock()
	s.Revoked, s.Stamps = w.revoked.ids.all(), w.revoked.stamps.all()
	w.revoked.mu.RUnlock()
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return atomicfile.Replace(path, append(b, '\n'))
}

// revokeDefaults fills in and checks what bounds the revocations that are kept in mind.
func (c *Config) revokeDefaults() error {
	if c.RevokesMax == 0 {
		c.RevokesMax = transport.DefaultRevokedBounds.Members
		if text := os.Getenv("CELERY_WORKER_REVOKES_MAX"); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				return fmt.Errorf("worker config: CELERY_WORKER_REVOKES_MAX: %q is not a number of at least 1", text)
			}
			c.RevokesMax = n
		}
	}
	if c.RevokeExpires == 0 {
		c.RevokeExpires = transport.DefaultRevokedBounds.Age
		if text := os.Getenv("CELERY_WORKER_REVOKE_EXPIRES"); text != "" {
			s, err := strconv.ParseFloat(text, 64)
			if err != nil || !(s > 0) || s > maxRevokeExpires.Seconds() {
				return fmt.Errorf("worker config: CELERY_WORKER_REVOKE_EXPIRES: %q is not a number of seconds from 0 to %v", text, maxRevokeExpires.Seconds())
			}
			c.RevokeExpires = time.Duration(s * float64(time.Second))
		}
	}
	switch {
	case c.RevokesMax < 0 || c.RevokesMax > maxRevokes:
		return fmt.Errorf("worker config: RevokesMax: %d is not from 1 to %d", c.RevokesMax, maxRevokes)
	case c.RevokeExpires < 0 || c.RevokeExpires > maxRevokeExpires:
		return fmt.Errorf("worker config: RevokeExpires: %v is not from 0 to %v", c.RevokeExpires, maxRevokeExpires)
	}
	return nil
}

const (
	maxRevokes       = 10_000_000
	maxRevokeExpires = 10 * 365 * 24 * time.Hour
)
