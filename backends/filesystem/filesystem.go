// Package filesystem is Celery's filesystem result backend: a file for each task in one folder that all workers and
// clients share, so that Go and Python read each other's results. It is for one machine, or a few with a common network
// folder, and for development. Importing it makes file:// known to backends.Open.
//
// What is stored stays until [Backend.Cleanup] removes it, as in Celery: nothing expires by itself.
package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/retry"
	"github.com/gelery/gelery/protocol"
)

func init() { backends.Register(Open, "file") }

const (
	scheme         = "file://"
	defaultExpires = 24 * time.Hour
	longestName    = 255 // bytes; what the file systems of all machines take

	// temporary begins the names of files that are being written. No backend looks at them.
	temporary = ".gelery-"
	// A file that cannot be read is read again for a while: Python writes where others read.
	tornPause = 10 * time.Millisecond
	tornLimit = time.Second
)

// Backend is an open folder of results.
type Backend struct {
	dir     string
	prefix  string // of task files
	group   string // of group files
	global  string // before the names of all
	codec   backends.Codec
	expires time.Duration // negative: never
	log     *slog.Logger
	poller  *backends.Poller
	lock    *lock
	closed  atomic.Bool
}

// Open opens a folder, file:///path, which must be there and let files be made in it. As in Celery the path is taken as
// it stands, and one without its leading slash (file://path) is relative to the working directory.
//
// The only transport option is global_keyprefix ([backends.GlobalKeyPrefix]), put before every file's name.
func Open(_ context.Context, url string, o backends.Options) (backends.Backend, error) {
	dir, err := folder(url)
	if err != nil {
		return nil, fmt.Errorf("result backend: %w", err)
	}
	for name := range o.TransportOptions {
		if name != "global_keyprefix" {
			return nil, fmt.Errorf("transport option %q is unknown for files; known: global_keyprefix", name)
		}
	}
	prefix, err := backends.GlobalKeyPrefix(o.TransportOptions["global_keyprefix"])
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(prefix, `/\`+"\x00") {
		return nil, fmt.Errorf("transport option \"global_keyprefix\": %q is no beginning of a file's name", prefix)
	}
	codec, err := backends.NewCodec(o)
	if err != nil {
		return nil, err
	}
	b := &Backend{dir: dir, prefix: prefix + backends.TaskKeyPrefix, group: prefix + backends.GroupKeyPrefix,
		global: prefix, codec: codec, expires: o.Expires, log: o.Logger, lock: newLock(filepath.Join(dir, temporary+"lock"))}
	if b.expires == 0 {
		b.expires = defaultExpires
	}
	if b.log == nil {
		b.log = slog.Default()
	}
	b.poller = backends.NewPoller(b.poll)
	if o.Lazy {
		return b, nil
	}
	f, err := os.CreateTemp(dir, temporary)
	if err != nil {
		return nil, fmt.Errorf("result backend: files must be writable in the folder: %w", err)
	}
	return b, errors.Join(f.Close(), os.Remove(f.Name()))
}

func folder(url string) (string, error) {
	dir, ok := strings.CutPrefix(url, scheme)
	switch {
	case !ok || dir == "" || strings.ContainsRune(dir, 0):
		return "", errors.New("the URL names no folder; expected for example file:///var/lib/results")
	case strings.HasPrefix(dir, "localhost/"):
		return "", errors.New("file://localhost/ is not supported: Celery takes it for a relative path; write file:///path")
	}
	return dir, nil
}

// files makes the calls that are worth another try: a full disk, a network folder that is away.
var files = retry.Policy{Server: "the folder of results", Again: func(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.ESTALE, syscall.EMFILE, syscall.ENFILE, errBusy,
		context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}}

// name is the file of a key, or "" where no file can have that name.
func name(key string) string {
	if len(key) > longestName || strings.ContainsAny(key, `/\`+"\x00") {
		return ""
	}
	return key
}

// Store is backends.Backend's. Each file is replaced as a whole; a lock file keeps other Gelery processes from storing in
// between. A full disk is waited out.
func (b *Backend) Store(ctx context.Context, batch []*protocol.ResultMeta) error {
	documents := make([][]byte, len(batch))
	for i, m := range batch {
		if name(b.prefix+m.TaskID) == "" {
			return &backends.EncodeError{TaskID: m.TaskID, Err: errors.New("no file can have the id as its name")}
		}
		var err error
		if documents[i], err = b.codec.Append(nil, m); err != nil {
			return err
		}
	}
	if len(batch) == 0 {
		return nil
	}
	return b.locked(ctx, "store results", func() error {
		for i, m := range batch {
			old, err := b.read(b.prefix + m.TaskID)
			if err != nil {
				return err
			}
			if meta, err := b.codec.Decode(m.TaskID, old); err == nil && meta.Status == protocol.Success {
				continue
			}
			if err := b.write(b.prefix+m.TaskID, documents[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// locked calls f while nobody else stores.
func (b *Backend) locked(ctx context.Context, what string, f func() error) error {
	return files.Do(ctx, b.log, what, func(ctx context.Context) (err error) {
		if b.closed.Load() {
			return backends.ErrClosed
		}
		if err := b.lock.take(ctx); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.lock.give()) }()
		return f()
	})
}

// write replaces a file as a whole, so that no reader meets half of it. The umask says who may read it, as with Python's.
func (b *Backend) write(name string, data []byte) error {
	draft := filepath.Join(b.dir, temporary+protocol.NewID())
	f, err := os.OpenFile(draft, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(draft, filepath.Join(b.dir, name))
	}
	if err != nil {
		_ = os.Remove(draft)
	}
	return err
}

// read returns what is stored of a key, nil if nothing is.
func (b *Backend) read(key string) ([]byte, error) {
	if key = name(key); key == "" {
		return nil, nil
	}
	data, err := os.ReadFile(filepath.Join(b.dir, key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// readKey is read, again and again where that may help.
func (b *Backend) readKey(ctx context.Context, key string) (data []byte, err error) {
	if b.closed.Load() {
		return nil, backends.ErrClosed
	}
	err = files.Do(ctx, b.log, "read results", func(context.Context) (err error) {
		data, err = b.read(key)
		return err
	})
	return data, err
}

// Get is backends.Backend's.
func (b *Backend) Get(ctx context.Context, id string) (*protocol.ResultMeta, error) {
	metas, err := b.GetMany(ctx, id)
	if err != nil {
		return nil, err
	}
	return metas[0], nil
}

// GetMany is backends.Backend's.
func (b *Backend) GetMany(ctx context.Context, ids ...string) ([]*protocol.ResultMeta, error) {
	return backends.Reader(b.poll).GetMany(ctx, b.codec, ids...)
}

// Watch is backends.Backend's. The folder is read again and again ([backends.Poller]).
func (b *Backend) Watch(ctx context.Context, ids ...string) iter.Seq2[*protocol.ResultMeta, error] {
	return b.poller.Watch(ctx, b.codec, ids...)
}

// poll is a backends.Reader.
func (b *Backend) poll(ctx context.Context, ids []string, found func(id, text string)) error {
	limit := time.Now().Add(tornLimit)
	for len(ids) > 0 {
		var torn []string
		for _, id := range ids {
			data, err := b.readKey(ctx, b.prefix+id)
			if err != nil {
				return err
			}
			if data == nil {
				continue
			}
			if _, err := b.codec.Decode(id, data); err != nil && time.Now().Before(limit) {
				torn = append(torn, id)
				continue
			}
			found(id, string(data))
		}
		if ids = torn; len(ids) > 0 {
			if err := pause(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// pause comes before what cannot be read is read again, for a second at most: Python empties a file before it writes.
func pause(ctx context.Context) error {
	select {
	case <-time.After(tornPause):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Forget is backends.Backend's.
func (b *Backend) Forget(ctx context.Context, ids ...string) error {
	if len(ids) == 0 {
		return nil
	}
	return b.locked(ctx, "forget results", func() error {
		for _, id := range ids {
			if err := b.remove(b.prefix + id); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *Backend) remove(key string) error {
	if key = name(key); key == "" {
		return nil
	}
	err := os.Remove(filepath.Join(b.dir, key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// SaveGroup is backends.GroupKeeper's: the file Celery's GroupResult.save makes.
func (b *Backend) SaveGroup(ctx context.Context, group *protocol.ResultTuple) error {
	if group.ID == "" || name(b.group+group.ID) == "" {
		return &backends.EncodeError{TaskID: group.ID, Err: errors.New("no file can have the id as its name")}
	}
	document, err := b.codec.AppendGroup(nil, group)
	if err != nil {
		return err
	}
	return b.locked(ctx, "save group", func() error { return b.write(b.group+group.ID, document) })
}

// LoadGroup is backends.GroupKeeper's.
func (b *Backend) LoadGroup(ctx context.Context, id string) (*protocol.ResultTuple, error) {
	for limit := time.Now().Add(tornLimit); ; {
		data, err := b.readKey(ctx, b.group+id)
		if err != nil || data == nil {
			return nil, err
		}
		group, err := b.codec.DecodeGroup(id, data)
		if err == nil || time.Now().After(limit) {
			return group, err
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

// ForgetGroup is backends.GroupKeeper's.
func (b *Backend) ForgetGroup(ctx context.Context, id string) error {
	return b.locked(ctx, "forget group", func() error { return b.remove(b.group + id) })
}

// Claim is backends.Claimer's: a file with the holder in it, made while nobody else stores. Where the system has no file locks
// (Windows) two processes that claim one name in the same moment may both have it.
func (b *Backend) Claim(ctx context.Context, name, holder string) (has bool, err error) {
	file, holder := b.global+backends.ClaimKey(name), backends.ClaimHolder(holder)
	err = b.locked(ctx, "claim", func() error {
		stored, err := b.read(file)
		if err == nil && stored == nil {
			stored, err = []byte(holder), b.write(file, []byte(holder))
		}
		has = string(stored) == holder
		return err
	})
	return has && err == nil, err
}

// Cleanup removes what was stored longer ago than Options.Expires, Python's results among it, and what writers that died
// left behind. celery.backend_cleanup.
func (b *Backend) Cleanup(ctx context.Context) error {
	if b.closed.Load() {
		return backends.ErrClosed
	}
	if b.expires < 0 {
		return nil
	}
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return err
	}
	before := time.Now().Add(-b.expires)
	for _, e := range entries {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		left := strings.HasPrefix(e.Name(), temporary) && e.Name() != filepath.Base(b.lock.path)
		if !left && !strings.HasPrefix(e.Name(), b.prefix) && !strings.HasPrefix(e.Name(), b.group) && !strings.HasPrefix(e.Name(), b.global+backends.ClaimKeyPrefix) {
			continue
		}
		info, err := e.Info()
		if err == nil && info.ModTime().Before(before) {
			err = b.remove(e.Name())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Close ends the watches with an error. Closing twice does nothing.
func (b *Backend) Close() error {
	b.closed.Store(true)
	b.poller.Close()
	return nil
}
