package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

const (
	unlockTask  = "celery.chord_unlock"
	unlockBatch = 500 // results that are looked at in one go, until one is not there
	maxInterval = 1e9 // seconds; beyond there is no date
)

// chordDefaults fills in how chords are watched.
func (c *Config) chordDefaults() error {
	c.ChordRetryInterval = cmp.Or(c.ChordRetryInterval, time.Second)
	c.ChordJoinTimeout = cmp.Or(c.ChordJoinTimeout, 3*time.Second)
	c.ChordSizeTimeout = cmp.Or(c.ChordSizeTimeout, 5*time.Minute)
	if c.ChordRetryInterval < 0 || c.ChordJoinTimeout < 0 || c.ChordSizeTimeout < 0 {
		return fmt.Errorf("worker config: ChordRetryInterval %v, ChordJoinTimeout %v, ChordSizeTimeout %v: none may be negative",
			c.ChordRetryInterval, c.ChordJoinTimeout, c.ChordSizeTimeout)
	}
	return nil
}

// unlockChord is celery.chord_unlock, which watches a chord whose backend does not count parts: it is retried until all parts are
// done. Then it returns the list of their results, or as a text why the chord has failed, with the error of the part that has (a
// table); unlocked lets the body follow.
func (w *Worker) unlockChord(ctx context.Context, r *protocol.Request) (any, error) {
	if _, err := signatureArgument(r, 1, "callback"); err != nil {
		return nil, err
	}
	group, err := unlockedGroup(r)
	if err != nil {
		return "Join error: " + err.Error(), nil //nolint:nilerr // the chord has failed, and not this task
	}
	metas, err := w.readyMembers(ctx, group)
	var unreadable *backends.DecodeError
	switch {
	case errors.As(err, &unreadable):
		return "Join error: " + err.Error(), nil
	case err != nil || metas == nil:
		return nil, lookAgain(r, err)
	}
	results, failed, err := backends.Join(group, metas)
	switch {
	case err != nil:
		return "Join error: " + err.Error(), nil //nolint:nilerr // the chord has failed, and not this task
	case failed != nil:
		return failedPart(failed), nil
	}
	return results, nil
}

// unlockedGroup is the header of the chord that a celery.chord_unlock watches.
func unlockedGroup(r *protocol.Request) (*protocol.ResultTuple, error) {
	id, _ := argument(r, 0, "group_id").(string)
	list, err := listArgument(r, 4, "result")
	if err != nil {
		return nil, err
	}
	group := &protocol.ResultTuple{ID: id, Children: make([]protocol.ResultTuple, len(list))}
	for i, v := range list {
		if group.Children[i], err = protocol.ResultTupleFromValue(v); err != nil {
			return nil, err
		}
	}
	return group, nil
}

// readyMembers are the metas of a group's members; nil if not all are ready.
func (w *Worker) readyMembers(ctx context.Context, group *protocol.ResultTuple) (map[string]*protocol.ResultMeta, error) {
	if w.backend == nil {
		return nil, errors.New("there is no result backend")
	}
	metas := map[string]*protocol.ResultMeta{}
	for ids := range slices.Chunk(backends.Members(group), unlockBatch) {
		reading, cancel := context.WithTimeout(ctx, w.config.ChordJoinTimeout)
		some, err := w.backend.GetMany(reading, ids...)
		cancel()
		if err != nil {
			return nil, err
		}
		for _, m := range some {
			if !m.Status.Ready() {
				return nil, nil // not yet
			}
			metas[m.TaskID] = m
		}
	}
	return metas, nil
}

// lookAgain is the retry of a celery.chord_unlock.
func lookAgain(r *protocol.Request, err error) error {
	var options []task.RetryOption
	if seconds, ok := number(argument(r, 2, "interval")); ok && seconds >= 0 && seconds < maxInterval {
		options = append(options, task.Countdown(time.Duration(seconds*float64(time.Second))))
	}
	if most, ok := number(argument(r, 3, "max_retries")); ok {
		options = append(options, task.MaxRetries(int(most)))
	}
	return task.Retry(err, options...)
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// failedPart is what unlockChord returns of a chord a part of which has failed.
func failedPart(failed *protocol.ResultMeta) map[string]any {
	found := map[string]any{"reason": dependencyRaised(failed)}
	if x := failed.Exception; x != nil {
		found["exc_type"], found["exc_module"], found["exc_message"] = x.Type, x.Module, x.Args
	}
	return found
}

func dependencyRaised(failed *protocol.ResultMeta) string {
	x := failed.Exception
	if x == nil {
		x = &protocol.Exception{Type: string(failed.Status)}
	}
	return fmt.Sprintf("Dependency %s raised %s", failed.TaskID, x.String()) // its repr, as in Celery
}

// unlocked lets the body of a chord follow the celery.chord_unlock that has found it done.
func (w *Worker) unlocked(o *outcome, c *completion) {
	body, err := signatureArgument(o.request, 1, "callback")
	if err != nil {
		return // it would have failed
	}
	group, _ := argument(o.request, 0, "group_id").(string)
	switch found := c.result.(type) {
	case string:
		w.failChord(o, &body, found, nil)
	case map[string]any:
		reason, _ := found["reason"].(string)
		var cause *protocol.Exception
		if name, ok := found["exc_type"].(string); ok {
			cause = &protocol.Exception{Type: name}
			cause.Module, _ = found["exc_module"].(string)
			cause.Args, _ = found["exc_message"].([]any)
		}
		w.failChord(o, &body, reason, cause)
	case []any:
		w.completeChord(o, group, &body, backends.ChordState{Complete: true, Results: found})
	}
	c.result = nil
}
