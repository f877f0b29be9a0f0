package filesystem

import (
	"context"
	"errors"
	"os"
	"time"
)

// errBusy: another process stores just now.
var errBusy = errors.New("another process holds the lock of the folder")

// lock is held by one of all Gelery processes that store into a folder, and in a process by one goroutine: check and
// write of a record must be one. Where the system has no file locks (Windows), it holds within the process only.
type lock struct {
	path string
	mine chan struct{} // one token, for whoever has it within the process
	file *os.File      // of the holder
}

func newLock(path string) *lock {
	l := &lock{path: path, mine: make(chan struct{}, 1)}
	l.mine <- struct{}{}
	return l
}

// take waits for the lock, or until ctx is done.
func (l *lock) take(ctx context.Context) (err error) {
	select {
	case <-l.mine:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() {
		if err != nil {
			l.mine <- struct{}{}
		}
	}()
	// For everybody to write, as the folder may be used by workers of several users.
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return err
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		taken, err := tryLock(f)
		if err != nil || taken {
			l.file = f
			if err != nil {
				return errors.Join(err, f.Close())
			}
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errors.Join(errBusy, f.Close())
		}
	}
}

// give ends the lock with its file.
func (l *lock) give() error {
	err := l.file.Close()
	l.file = nil
	l.mine <- struct{}{}
	return err
}
