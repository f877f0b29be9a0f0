package task

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

// counter is a backend that counts the parts of chords.
type counter struct {
	backends.Backend // nil: a method not written here panics
	backends.ChordCounter
	started []backends.ChordSize
}

func (c *counter) StartChords(_ context.Context, all []backends.ChordSize) error {
	c.started = append(c.started, all...)
	return nil
}

// What is sent again is the same, message by message, whoever sends it; and nobody is told to wait for it.
func TestApplyOnce(t *testing.T) {
	t.Parallel()
	all := []Signature{
		S("t.a", 1).With(ID("one"), Queue("q")),
		Chain(S("t.a"), Group(S("t.b"), Chain(S("t.c"), S("t.d"))), S("t.e")).With(ID("chain")),
		Group(S("t.a"), S("t.b"), Chord(Group(S("t.x"), S("t.y")), S("t.z"))).With(ID("group")),
		Chord(Group(S("t.a"), S("t.b")), S("t.c")).With(ID("chord")),
	}
	var sent [2][]string
	var chords [2][]backends.ChordSize
	for i := range sent {
		p, b := &probe{}, &counter{}
		client, err := NewClient(p, b, Config{})
		if err != nil {
			t.Fatal(err)
		}
		for j, err := range client.ApplyOnce(t.Context(), all) {
			if err != nil {
				t.Errorf("signature %d: %v", j, err)
			}
		}
		for _, pub := range slices.Concat(p.published...) {
			if !pub.Once || pub.Message.Properties.ReplyTo != "" {
				t.Errorf("message %s: once %t, reply to %q", pub.Message.Headers.ID, pub.Once, pub.Message.Properties.ReplyTo)
			}
			sent[i] = append(sent[i], pub.Message.Headers.ID+" "+string(pub.Message.Body))
		}
		chords[i] = b.started
	}
	if len(sent[0]) != 1+1+4+2 || !slices.Equal(sent[0], sent[1]) {
		t.Errorf("the first time\n%q\nthe second\n%q", sent[0], sent[1])
	}
	if len(chords[0]) != 2 || !slices.Equal(summary(chords[0]), summary(chords[1])) {
		t.Errorf("chords %v, then %v", chords[0], chords[1])
	}
}

func summary(chords []backends.ChordSize) (all []string) {
	for _, c := range chords {
		text, _ := serialization.AppendJSON(nil, []any{c.Group, c.Size})
		all = append(all, string(text))
	}
	return all
}

// refusing is a broker that refuses what goes to one queue. With tells it takes the others of the batch, and says so.
type refusing struct {
	probe
	tells bool
}

func (r *refusing) Publish(ctx context.Context, batch []transport.Publication) error {
	err := errors.New("no such queue")
	var taken []transport.Publication
	refused := map[int]error{}
	for i, p := range batch {
		if p.RoutingKey == "refused" {
			refused[i] = err
		} else {
			taken = append(taken, p)
		}
	}
	switch {
	case len(refused) == 0:
		return r.probe.Publish(ctx, batch)
	case !r.tells:
		return &transport.PublishError{Err: err}
	case len(taken) > 0:
		if err := r.probe.Publish(ctx, taken); err != nil {
			return err
		}
	}
	return &transport.PublishError{Err: err, InDoubt: len(taken) > 0, Failed: refused}
}

// What cannot be sent keeps nothing else back.
func TestApplyOnceKeepsNothingElseBack(t *testing.T) {
	t.Parallel()
	p := &refusing{}
	client, err := NewClient(p, nil, Config{})
	if err != nil {
		t.Fatal(err)
	}
	errs := client.ApplyOnce(t.Context(), []Signature{
		S("t.a").With(ID("1")), S("t.a").With(ID("2"), Queue("refused")), S("t.a"), S("").With(ID("4")), S("t.a", func() {}).With(ID("5")),
		Chord(Group(S("t.a")), S("t.b")).With(ID("6")), S("t.a").With(ID("7")),
	})
	for i, wrong := range []bool{false, true, true, true, true, true, false} {
		if (errs[i] != nil) != wrong {
			t.Errorf("signature %d: %v", i+1, errs[i])
		}
	}
	var ids []string
	for _, pub := range slices.Concat(p.published...) {
		ids = append(ids, pub.Message.Headers.ID)
	}
	if !slices.Equal(ids, []string{"1", "7"}) {
		t.Errorf("sent: %v", ids)
	}
	p = &refusing{tells: true}
	if client, err = NewClient(p, nil, Config{}); err != nil {
		t.Fatal(err)
	}
	errs2 := client.ApplyOnce(t.Context(), []Signature{S("t.a").With(ID("1")), S("t.a").With(ID("2"), Queue("refused")), Group(S("t.a"), S("t.b")).With(ID("3"))})
	if n := len(slices.Concat(p.published...)); n != 3 || errs2[0] != nil || errs2[1] == nil || errs2[2] != nil {
		t.Errorf("%d messages where the broker tells which it refused: %v", n, errs2)
	}
	if !errors.Is(errs[5], ErrNoChords) {
		t.Errorf("a chord without a backend: %v", errs[5])
	}
}
