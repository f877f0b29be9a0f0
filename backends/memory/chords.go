package memory

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

var _ backends.ChordCounter = (*Backend)(nil)

// chord is what is known of a chord.
type chord struct {
	sized   bool // size is known
	size    int
	grown   int
	added   map[string]string    // what it has grown by, and who has added it
	parts   map[string]chordPart // by task id
	owner   string               // the task by which it was complete
	ended   bool
	expires time.Time // zero: never
}

type chordPart struct {
	place float64
	text  string // as Celery's Redis backend keeps it
}

func (c *chord) expired(now time.Time) bool { return !c.expires.IsZero() && !now.Before(c.expires) }

// chord returns the chord of a group, made if it is not there, and lets it live on. The mutex is held.
func (s *store) chord(group string, now, expires time.Time) *chord {
	c := s.chords[group]
	if c == nil || c.expired(now) {
		c = &chord{parts: map[string]chordPart{}}
		s.chords[group] = c
	}
	c.expires = expires
	return c
}

// changeChords runs f with the mutex held.
func (b *Backend) changeChords(f func(chord func(group string) *chord)) error {
	s, err := b.opened()
	if err != nil {
		return err
	}
	now, expires := b.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	f(func(group string) *chord { return s.chord(group, now, expires) })
	s.sweep(now)
	return nil
}

// StartChords is backends.ChordCounter's.
func (b *Backend) StartChords(_ context.Context, chords []backends.ChordSize) error {
	return b.changeChords(func(chord func(string) *chord) {
		for _, start := range chords {
			c := chord(start.Group)
			c.sized, c.size = true, start.Size
		}
	})
}

// GrowChord is backends.ChordCounter's.
func (b *Backend) GrowChord(_ context.Context, g backends.ChordGrowth) error {
	return b.changeChords(func(chord func(string) *chord) {
		c := chord(g.Group)
		if _, there := c.added[g.Part]; there || c.ended {
			return
		}
		if c.added == nil {
			c.added = map[string]string{}
		}
		c.added[g.Part] = g.By
		c.grown += g.Size
	})
}

// ShrinkChord is backends.ChordCounter's.
func (b *Backend) ShrinkChord(_ context.Context, g backends.ChordGrowth) error {
	return b.changeChords(func(chord func(string) *chord) {
		if c := chord(g.Group); g.By != "" && c.added[g.Part] == g.By {
			delete(c.added, g.Part)
			c.grown -= g.Size
		}
	})
}

// EndChords is backends.ChordCounter's.
func (b *Backend) EndChords(_ context.Context, ended []backends.ChordEnd) error {
	return b.changeChords(func(chord func(string) *chord) {
		for _, end := range ended {
			c := chord(end.Group)
			*c = chordEnded(markExpires(time.Now(), c.expires))
		}
	})
}

func chordEnded(expires time.Time) chord { return chord{ended: true, expires: expires} }

// CountParts is backends.ChordCounter's.
func (b *Backend) CountParts(ctx context.Context, parts []backends.ChordPart) ([]backends.ChordState, error) {
	texts := make([]string, len(parts))
	for i, p := range parts {
		text, _, err := b.codec.AppendChordPart(nil, p.Meta)
		if err != nil {
			return nil, err
		}
		texts[i] = string(text)
	}
	complete := make([][]chordPart, len(parts))
	unsized := make([]bool, len(parts))
	err := b.changeChords(func(chord func(string) *chord) {
		for i, p := range parts {
			c := chord(p.Group)
			complete[i] = c.count(p, texts[i])
			unsized[i] = !c.sized && !c.ended
		}
	})
	if err != nil {
		return nil, err
	}
	states := make([]backends.ChordState, len(parts))
	for i, p := range parts {
		if complete[i] == nil {
			states[i].Unsized = unsized[i]
			continue
		}
		if states[i], err = b.joinChord(ctx, p.Group, complete[i]); err != nil {
			return nil, err
		}
	}
	return states, nil
}

// count counts a part. It returns all parts if the chord is complete by it.
func (c *chord) count(p backends.ChordPart, text string) []chordPart {
	if c.ended {
		return nil
	}
	place := math.Inf(1)
	if p.Index != nil {
		place = float64(*p.Index)
	}
	id := p.Meta.TaskID
	c.parts[id] = chordPart{place, text}
	if !c.sized || len(c.parts) < c.size+c.grown || c.owner != "" && c.owner != id {
		return nil
	}
	c.owner = id
	return slices.Collect(maps.Values(c.parts))
}

// joinChord makes the state of a complete chord.
func (b *Backend) joinChord(ctx context.Context, group string, parts []chordPart) (backends.ChordState, error) {
	slices.SortFunc(parts, func(x, y chordPart) int {
		return cmp.Or(cmp.Compare(x.place, y.place), cmp.Compare(x.text, y.text))
	})
	metas := make([]*protocol.ResultMeta, len(parts))
	for i, p := range parts {
		var err error
		if metas[i], err = b.codec.DecodeChordPart(group, []byte(p.text)); err != nil {
			return backends.BrokenChord(err)
		}
	}
	tree, err := b.LoadGroup(ctx, group)
	if err != nil {
		return backends.BrokenChord(err)
	}
	return backends.JoinChord(ctx, b, metas, tree)
}
