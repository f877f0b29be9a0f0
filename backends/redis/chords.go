package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/protocol"
)

var _ backends.ChordCounter = (*Backend)(nil)

var (
	//go:embed chords.lua
	chordsSource string
	//go:embed countchords.lua
	countSource string
	//go:embed recountchord.lua
	recountSource string

	countScript   = redis.NewScript(chordsSource + countSource)
	recountScript = redis.NewScript(chordsSource + recountSource)

	// growScript adds to the counter of what a chord has grown by, once for each part.
	//
	// KEYS  extra, what was added (a hash: part, by whom), mark
	// ARGV  1 seconds to keep, 2 seconds to keep what was added, 3 part, 4 by whom, 5 how much
	growScript = redis.NewScript(`
if redis.call('MGET', KEYS[3])[1] == 'ended' or redis.call('HEXISTS', KEYS[2], ARGV[3]) == 1 then return 0 end
redis.call('INCRBY', KEYS[1], ARGV[5])
if ARGV[1] ~= '0' then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1`)

	// shrinkScript takes back what the same caller has added. Its arguments are those of growScript.
	shrinkScript = redis.NewScript(`
if redis.call('HGET', KEYS[2], ARGV[3]) ~= ARGV[4] then return 0 end
redis.call('HDEL', KEYS[2], ARGV[3])
redis.call('DECRBY', KEYS[1], ARGV[5])
return 1`)
)

const chordEnded = "ended"

// chordKeys are the keys of a chord: parts, extra and size as Celery names them, and our mark.
func (b *Backend) chordKeys(group string) [4]string {
	key := b.groupKey(group)
	return [4]string{key + ".j", key + ".t", key + ".s", b.global + "_gelery.chord." + group}
}

// grownKey holds what was added to a running chord.
func (b *Backend) grownKey(group string) string { return b.global + "_gelery.grown." + group }

// chordMark is what the mark of a chord says that is complete by a task.
func chordMark(taskID string) string { return "by " + taskID }

// StartChords is backends.ChordCounter's.
func (b *Backend) StartChords(ctx context.Context, chords []backends.ChordSize) error {
	return redisconn.Do(ctx, b.log, "store sizes of chords", func(ctx context.Context) error {
		_, err := b.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, c := range chords {
				b.set(ctx, p, b.chordKeys(c.Group)[2], strconv.Itoa(c.Size))
			}
			return nil
		})
		return err
	}, redisconn.RetryFull)
}

// CountParts is backends.ChordCounter's: one script call for up to 256 parts or 4 MiB, and of chords that are complete one round trip
// more. It waits out a Redis that is full. Where Celery's result_chord_ordered is off, the order is that of the counting.
func (b *Backend) CountParts(ctx context.Context, parts []backends.ChordPart) ([]backends.ChordState, error) {
	members := make([][]byte, len(parts))
	lengths := make([]int, len(parts))
	for i, p := range parts {
		var err error
		if members[i], lengths[i], err = b.codec.AppendChordPart(nil, p.Meta); err != nil {
			return nil, err
		}
		if size := len(members[i]); size > b.largest {
			return nil, b.tooLarge(p.Meta.TaskID, size)
		}
	}
	states := make([]backends.ChordState, len(parts))
	for first := 0; first < len(parts); {
		n, size := 1, len(members[first])
		for first+n < len(parts) && n < batchRecords && size+len(members[first+n]) <= batchBytes {
			size += len(members[first+n])
			n++
		}
		some := parts[first : first+n]
		replies, err := b.countSome(ctx, some, members[first:], lengths[first:])
		if err != nil {
			return nil, err
		}
		for i, p := range some {
			if states[first+i], err = b.chordState(ctx, p, replies[i]); err != nil {
				return nil, err
			}
		}
		first += n
	}
	return states, nil
}

func (b *Backend) countSome(ctx context.Context, parts []backends.ChordPart, members [][]byte, lengths []int) ([]any, error) {
	keys := make([]string, 0, 4*len(parts))
	args := make([]any, 0, 3+4*len(parts))
	args = append(args, b.scriptTop[0], flag(b.ordered), int(b.markTTL()/time.Second))
	for i, p := range parts {
		k := b.chordKeys(p.Group)
		keys = append(keys, k[:]...)
		score := "+inf"
		if p.Index != nil {
			score = strconv.Itoa(*p.Index)
		}
		args = append(args, score, members[i], lengths[i], chordMark(p.Meta.TaskID))
	}
	var replies []any
	// Counting twice is harmless: the part is there already, and its chord is complete by it still.
	err := redisconn.Do(ctx, b.log, "count parts of chords", func(ctx context.Context) (err error) {
		replies, err = countScript.Run(ctx, b.client, keys, args...).Slice()
		return err
	}, redisconn.RetryFull)
	if err == nil && len(replies) != len(parts) {
		err = fmt.Errorf("count parts of chords: %d replies for %d parts", len(replies), len(parts))
	}
	return replies, err
}

// flag is how the scripts are told.
func flag(set bool) string {
	if set {
		return "1"
	}
	return "0"
}

// chordState makes of a script's reply what became of the chord.
func (b *Backend) chordState(ctx context.Context, p backends.ChordPart, reply any) (backends.ChordState, error) {
	for {
		if text, wrong := reply.(string); wrong {
			return broken(p.Group, errors.New(text))
		}
		switch reply {
		case int64(0):
			return backends.ChordState{}, nil
		case int64(-1):
			return backends.ChordState{Unsized: true}, nil
		}
		members, saved, err := b.readChord(ctx, p.Group)
		if err != nil {
			return backends.ChordState{}, err
		}
		metas, double, err := b.decodeParts(p.Group, members)
		if err != nil {
			return backends.BrokenChord(err)
		}
		if len(double) == 0 && len(metas) > 0 {
			return b.joinChord(ctx, p.Group, metas, saved)
		}
		if reply, err = b.recount(ctx, p, double); err != nil {
			return backends.ChordState{}, err
		}
		if len(metas) == 0 && reply != int64(0) {
			return broken(p.Group, errors.New("the parts of the chord are gone, its size is not"))
		}
	}
}

func broken(group string, err error) (backends.ChordState, error) {
	return backends.BrokenChord(&backends.DecodeError{TaskID: group, Err: err})
}

// readChord reads all parts of a chord in their order, and the group if its sender has saved it.
func (b *Backend) readChord(ctx context.Context, group string) (members []string, saved []byte, err error) {
	key := b.chordKeys(group)[0]
	err = redisconn.Do(ctx, b.log, "read parts of a chord", func(ctx context.Context) error {
		var list *redis.StringSliceCmd
		var get *redis.SliceCmd // not GET, which would fail on a key of another type
		_, err := b.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			if b.ordered {
				list = p.ZRange(ctx, key, 0, -1)
			} else {
				list = p.LRange(ctx, key, 0, -1)
			}
			get = p.MGet(ctx, b.groupKey(group))
			return nil
		})
		if err != nil {
			return err
		}
		members, saved = list.Val(), nil
		if text, ok := get.Val()[0].(string); ok {
			saved = []byte(text)
		}
		return nil
	})
	return members, saved, err
}

// decodeParts decodes parts. Double are those members of which there is a later one of the same task, each followed by whether that is
// the same.
func (b *Backend) decodeParts(group string, members []string) (metas []*protocol.ResultMeta, double []any, err error) {
	last := make(map[string]string, len(members)) // task id → member
	metas = make([]*protocol.ResultMeta, len(members))
	for i, member := range slices.Backward(members) {
		if metas[i], err = b.codec.DecodeChordPart(group, []byte(member)); err != nil {
			return nil, nil, err
		}
		if later, seen := last[metas[i].TaskID]; seen {
			double = append(double, member, flag(member == later))
		} else {
			last[metas[i].TaskID] = member
		}
	}
	return metas, double, nil
}

func (b *Backend) recount(ctx context.Context, p backends.ChordPart, double []any) (reply any, err error) {
	keys := b.chordKeys(p.Group)
	args := append([]any{flag(b.ordered), chordMark(p.Meta.TaskID)}, double...)
	err = redisconn.Do(ctx, b.log, "count parts of a chord again", func(ctx context.Context) (err error) {
		reply, err = recountScript.Run(ctx, b.client, keys[:], args...).Result()
		return err
	}, redisconn.RetryFull)
	return reply, err
}

// joinChord makes the state of a complete chord.
func (b *Backend) joinChord(ctx context.Context, group string, metas []*protocol.ResultMeta, saved []byte) (backends.ChordState, error) {
	var tree *protocol.ResultTuple
	if saved != nil {
		var err error
		if tree, err = b.codec.DecodeGroup(group, saved); err != nil {
			return backends.BrokenChord(err)
		}
	}
	return backends.JoinChord(ctx, b, metas, tree)
}

// EndChords is backends.ChordCounter's.
func (b *Backend) EndChords(ctx context.Context, ended []backends.ChordEnd) error {
	return redisconn.Do(ctx, b.log, "end chords", func(ctx context.Context) error {
		_, err := b.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, end := range ended {
				keys := b.chordKeys(end.Group)
				gone := keys[:3:3]
				if end.Failed {
					gone = keys[1:3:3] // programs look into the parts, as one may with Celery
				}
				p.Del(ctx, append(gone, b.grownKey(end.Group))...) // first, because it needs no memory
				if end.Failed && b.ttl == 0 {
					p.Expire(ctx, keys[0], b.markTTL())
				}
				p.Set(ctx, keys[3], chordEnded, b.markTTL())
			}
			return nil
		})
		return err
	}, redisconn.RetryFull)
}

// GrowChord is backends.ChordCounter's.
func (b *Backend) GrowChord(ctx context.Context, growth backends.ChordGrowth) error {
	return b.resizeChord(ctx, "grow a chord", growScript, growth)
}

// ShrinkChord is backends.ChordCounter's.
func (b *Backend) ShrinkChord(ctx context.Context, growth backends.ChordGrowth) error {
	return b.resizeChord(ctx, "shrink a chord", shrinkScript, growth)
}

func (b *Backend) resizeChord(ctx context.Context, what string, script *redis.Script, growth backends.ChordGrowth) error {
	of := b.chordKeys(growth.Group)
	keys := []string{of[1], b.grownKey(growth.Group), of[3]}
	return redisconn.Do(ctx, b.log, what, func(ctx context.Context) error {
		return script.Run(ctx, b.client, keys, b.scriptTop[0], int(b.markTTL()/time.Second), growth.Part, growth.By, growth.Size).Err()
	}, redisconn.RetryFull)
}
