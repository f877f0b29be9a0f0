package django

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/gelery/gelery/scheduler"
	"github.com/google/uuid"
)

// How a lease is kept. A standby looks every second, so that it leads at most seven seconds after the death of another.
const (
	leaseTime     = 6 * time.Second
	renewInterval = 2 * time.Second
	lookInterval  = time.Second
	leaseRow      = 1 // the only one of the table
)

// statementTimeout bounds what the beat asks of the database at once.
const statementTimeout = 10 * time.Second

// readTimeout bounds how long it may take to read all rows.
const readTimeout = time.Minute

// lease is the right to send. Its owner and number are in the table as long as nobody else has led, and every change of the beat's
// begins with a look at them in the same transaction: so a beat that lost it without knowing changes nothing.
type lease struct {
	*Store
	owner string
	fence int64

	lost     chan struct{}
	losing   sync.Once
	running  context.Context // until Release
	stop     context.CancelFunc
	scans    sync.WaitGroup
	stopped  chan struct{}
	mu       sync.Mutex // held by the beat's methods, which come one after the other anyway
	read     read
	sent     []scheduler.Run // what is done with and still in the table of pending runs
	released bool
}

var _ scheduler.Lease = (*lease)(nil)

// Lead is [scheduler.Store]'s: it waits until no other beat of Gelery leads with this database, and stores the static entries.
func (s *Store) Lead(ctx context.Context) (scheduler.Lease, error) {
	host, _ := os.Hostname()
	l := &lease{Store: s, owner: fmt.Sprintf("%.100s:%d:%s", host, os.Getpid(), uuid.NewString()), lost: make(chan struct{}), stopped: make(chan struct{})}
	for told := false; ; {
		begun := time.Now()
		taken, by, err := l.acquire(ctx)
		if err != nil {
			return nil, err
		}
		if taken {
			l.running, l.stop = context.WithCancel(context.WithoutCancel(ctx))
			go l.renew(l.running, begun) // until Release
			break
		}
		if !told {
			told = true
			s.log.Info("beat: another one leads with this database; standing by", "leader", by)
		}
		timer := time.NewTimer(lookInterval)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
	s.putStatic(ctx)
	l.read.stale = true
	return l, nil
}

// acquire takes the lease if it is free.
func (l *lease) acquire(ctx context.Context) (taken bool, by string, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	d := l.dialect
	n, err := d.exec(ctx, l.db, "UPDATE ", leaseTable, " SET owner = ", arg{l.owner}, ", fence = fence + 1, renewals = renewals + 1, valid_until = ", d.now, " + ",
		arg{leaseTime.Milliseconds()}, " WHERE id = ", arg{leaseRow}, " AND (owner = ", arg{l.owner}, " OR valid_until <= ", d.now, ")")
	if err != nil {
		return false, "", err
	}
	there := false
	err = d.query(ctx, l.db, func(scan func(...any) error) error {
		there = true
		return scan(&by, &l.fence)
	}, "SELECT owner, fence FROM ", leaseTable, " WHERE id = ", arg{leaseRow})
	if err != nil || there {
		return n > 0 && by == l.owner, by, err
	}
	_, err = d.exec(ctx, l.db, "INSERT INTO ", leaseTable, " (id, owner, valid_until, fence, renewals) VALUES (", arg{leaseRow}, ", '', 0, 0, 0)")
	if err != nil && !d.Kind(err).Again() {
		return false, "", err
	}
	return l.acquire(ctx)
}

// hold looks whether the lease is still ours, and renews it. In a transaction nobody else can take it until that ends.
func (l *lease) hold(ctx context.Context, r runner) error {
	d := l.dialect
	n, err := d.exec(ctx, r, "UPDATE ", leaseTable, " SET renewals = renewals + 1, valid_until = ", d.now, " + ", arg{leaseTime.Milliseconds()},
		" WHERE id = ", arg{leaseRow}, " AND owner = ", arg{l.owner}, " AND fence = ", arg{l.fence})
	if err == nil && n == 0 {
		l.lose()
		return scheduler.ErrNotLeading
	}
	return err
}

func (l *lease) lose() { l.losing.Do(func() { close(l.lost) }) }

// renew keeps the lease until ctx is done. A lease that could not be renewed in time is lost, whoever has it.
func (l *lease) renew(ctx context.Context, confirmed time.Time) {
	defer close(l.stopped)
	ticker := time.NewTicker(renewInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.lost:
			return
		case <-ticker.C:
		}
		begun := time.Now()
		trying, cancel := context.WithDeadline(ctx, confirmed.Add(leaseTime))
		err := l.inTurn(trying, func() error { return l.hold(trying, l.db) })
		cancel()
		switch {
		case err == nil:
			confirmed = begun
		case ctx.Err() != nil || errors.Is(err, scheduler.ErrNotLeading):
			return
		case time.Since(confirmed) >= leaseTime:
			l.log.Error("beat: the lease could not be renewed in time", "error", err)
			l.lose()
			return
		default:
			l.log.Warn("beat: the lease could not be renewed; it is tried again", "error", err)
		}
	}
}

// Lost is [scheduler.Lease]'s.
func (l *lease) Lost() <-chan struct{} { return l.lost }

// Changed is [scheduler.Lease]'s: what this store has changed. What others change is seen within a second.
func (l *lease) Changed() <-chan struct{} { return l.change }

// Release is [scheduler.Lease]'s.
func (l *lease) Release(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released {
		return nil
	}
	l.released = true
	l.stop()
	<-l.stopped
	l.scans.Wait()
	l.lose()
	if err := l.flush(ctx, nil); err != nil {
		l.log.Warn("beat: what was sent could not be noted; it is sent again, under the same ids", "runs", len(l.sent), "error", err)
	}
	_, err := l.dialect.exec(ctx, l.db, "UPDATE ", leaseTable, " SET valid_until = 0 WHERE id = ", arg{leaseRow}, " AND owner = ", arg{l.owner},
		" AND fence = ", arg{l.fence})
	return err
}

// within is a transaction that begins with a look at the lease and lasts at most as long as a statement may.
func (l *lease) within(ctx context.Context, do func(ctx context.Context, tx *sql.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return l.inTurn(ctx, func() error {
		return l.transaction(ctx, func(tx *sql.Tx) error {
			if err := l.hold(ctx, tx); err != nil {
				return err
			}
			return do(ctx, tx)
		})
	})
}

// transaction does all of what do does or nothing.
func (s *Store) transaction(ctx context.Context, do func(tx *sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback() // the first error says why
		return err
	}
	return tx.Commit()
}
