// Package backends is where results rest: the contract every result backend keeps, and the registry that opens one by
// URL. backendstest is the contract as tests.
package backends

import (
	"context"
	"errors"
	"iter"

	"github.com/gelery/gelery/protocol"
)

// Backend stores the results of tasks. All methods may be called concurrently. A driver reconnects by itself for as
// long as the context of the call lives.
type Backend interface {
	// Store writes the batch in one round trip and tells those who wait. A stored SUCCESS is never overwritten: a
	// later write for its id is silently skipped, as Celery's key-value backends do. Within a batch, records of one
	// id are written in order. Every record is written or skipped when it returns nil.
	//
	// A record that cannot be encoded is an *EncodeError, and then nothing of the batch was written: replace that
	// record and store again. After any other error some of it may have been written; storing again is harmless.
	Store(ctx context.Context, batch []*protocol.ResultMeta) error

	// Get returns the stored meta of a task, or one with state PENDING when nothing is stored.
	Get(ctx context.Context, id string) (*protocol.ResultMeta, error)

	// GetMany returns the metas of tasks as Get does, one for each id and in their order, in as few round trips as the store
	// allows. A stored value that cannot be read is an error (*DecodeError of that task) and the whole call's.
	GetMany(ctx context.Context, ids ...string) ([]*protocol.ResultMeta, error)

	// Watch yields the meta of each task as it is now and again whenever a newer one is stored, until all are ready;
	// it then ends. PENDING is yielded once for a task with nothing stored. It learns of changes by push, or where the
	// store tells nothing (a database, files) by asking again after 25 ms at first and 500 ms at most. States may
	// be skipped when they follow each other fast; the final one never is. An error ends it: the context's, or that
	// a stored value could not be read (*DecodeError of that task).
	Watch(ctx context.Context, ids ...string) iter.Seq2[*protocol.ResultMeta, error]

	// Forget removes what is stored of the tasks.
	Forget(ctx context.Context, ids ...string) error

	Close() error
}

// ErrClosed is what a closed backend answers, and how the watches of a backend end that is closed.
var ErrClosed = errors.New("result backend is closed")

// ErrUnexpected ends the Watch of a task of which a Replier will not hear: it was not announced to Expect, or so long
// ago that it is forgotten.
var ErrUnexpected = errors.New("no result is expected here: only the client that sent the task is told, and it remembers " +
	"the latest ones only")

// Replier is a Backend that keeps no results but sends each to the client that asked for it: Celery's rpc://. Only
// that client can read it; to any other the task is PENDING, and a Watch of it ends with ErrUnexpected.
type Replier interface {
	// Expect makes ready for the results of the tasks before they are sent, and returns the queue that their messages
	// must name as reply_to. It fails if the queue cannot be made.
	Expect(ctx context.Context, ids ...string) (replyTo string, err error)
}

// ChordCounter is a Backend that counts the finished parts of chords by itself, as Celery's Redis backend does: keys, sizes
// and order are Celery's, so that parts may run on Go and Python workers alike. Without it a chord is watched by
// celery.chord_unlock.
type ChordCounter interface {
	// StartChords stores how many parts each chord has. It comes before the first part is sent.
	StartChords(ctx context.Context, chords []ChordSize) error

	// CountParts counts parts that are done, in one round trip, and tells for each whether its chord is complete by it:
	// of all parts of a chord, however often one is counted, for one task id only, until EndChords. A part that is
	// counted again takes its own old place. A part of a chord of which no size is known, or that has ended, completes nothing.
	CountParts(ctx context.Context, parts []ChordPart) ([]ChordState, error)

	// EndChords removes what is stored of chords that were complete; they complete no more. What stays is a mark, for as long
	// as results stay, and of a chord that has failed what its parts came to, where Celery leaves it.
	EndChords(ctx context.Context, ended []ChordEnd) error

	// GrowChord makes a chord larger by what is added to it: Celery's add_to_chord. It does so once for each Part, whoever asks
	// and however often. A chord that has ended stays as it is.
	GrowChord(ctx context.Context, growth ChordGrowth) error

	// ShrinkChord takes a growth back that was this caller's, because nothing was sent; another's stays.
	ShrinkChord(ctx context.Context, growth ChordGrowth) error
}

// ChordSize is how many parts a chord has.
type ChordSize struct {
	Group string // the id of the header's group
	Size  int
}

// ChordGrowth is something that is added to a running chord.
type ChordGrowth struct {
	Group string // the id of the header's group
	Part  string // the id of what is added: a task, or the end of a workflow
	Size  int    // how many of its tasks report to the chord
	By    string // who adds it: anything that nobody else uses
}

// ChordEnd is a chord whose body was sent, or has failed because a part has.
type ChordEnd struct {
	Group  string
	Failed bool
}

// ChordPart is a finished part of a chord.
type ChordPart struct {
	Group string
	Index *int                 // its place among the results; nil: the last ones, by their bytes
	Meta  *protocol.ResultMeta // TaskID, Status, Result and Exception are heeded
}

// ChordState is what became of a chord by a part.
type ChordState struct {
	Complete bool // the body is to be sent, or to fail
	Unsized  bool // no size of it is stored, and it has not ended as far as is known

	// Of a complete chord. Results are those of the parts in their order. Failed is the first part that did not succeed, nil
	// if all did. Err: what is stored of the parts cannot be read.
	Results []any
	Failed  *protocol.ResultMeta
	Err     error
}

// Claimer is a Backend in which something can be taken by one only, for as long as results stay.
type Claimer interface {
	// Claim reports whether holder has the name: it is the first to claim it, or has done so before.
	Claim(ctx context.Context, name, holder string) (bool, error)
}

// GroupKeeper is a Backend that keeps group results: Celery's GroupResult.save, restore and delete.
type GroupKeeper interface {
	SaveGroup(ctx context.Context, group *protocol.ResultTuple) error
	// LoadGroup returns a saved group; nil when there is none.
	LoadGroup(ctx context.Context, id string) (*protocol.ResultTuple, error)
	ForgetGroup(ctx context.Context, id string) error
}

// Cleaner is a Backend in which what has expired does not go by itself: celery.backend_cleanup removes it.
type Cleaner interface {
	Cleanup(ctx context.Context) error
}

// DecodeError is a stored result that cannot be read, of a task or of a group.
type DecodeError struct {
	TaskID string
	Err    error
}

func (e *DecodeError) Error() string { return "result of task " + e.TaskID + ": " + e.Err.Error() }
func (e *DecodeError) Unwrap() error { return e.Err }

// EncodeError is a result that cannot be stored because the serializer has no form for it or it is too large.
type EncodeError struct {
	TaskID string
	Err    error
}

func (e *EncodeError) Error() string {
	return "encode result of task " + e.TaskID + ": " + e.Err.Error()
}
func (e *EncodeError) Unwrap() error { return e.Err }
