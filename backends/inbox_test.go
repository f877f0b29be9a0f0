package backends

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/gelery/gelery/protocol"
)

func TestInbox(t *testing.T) {
	t.Parallel()
	codec, err := NewCodec(Options{})
	if err != nil {
		t.Fatal(err)
	}
	failed := errors.New("failed")
	document := func(id string, s protocol.State) string {
		text, err := codec.Append(nil, &protocol.ResultMeta{TaskID: id, Status: s})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	put := func(id string, s protocol.State) func(*Inbox) {
		return func(in *Inbox) { in.Put(id, document(id, s)) }
	}
	absent := func(id string) func(*Inbox) { return func(in *Inbox) { in.PutAbsent(id) } }
	type steps = [][]func(*Inbox) // what is put before each yield
	tests := []struct {
		name  string
		steps steps
		want  []string
		err   error
	}{
		{"nothing stored, then success", steps{{absent("a"), absent("b")}, {}, {put("b", "SUCCESS"), put("a", "SUCCESS")}},
			[]string{"a PENDING", "b PENDING", "b SUCCESS", "a SUCCESS"}, nil},
		{"latest wins", steps{{put("a", "STARTED"), put("a", "RETRY"), put("a", "SUCCESS"), put("b", "SUCCESS")}},
			[]string{"a SUCCESS", "b SUCCESS"}, nil},
		{"the same again", steps{{put("a", "STARTED")}, {put("a", "STARTED"), put("b", "SUCCESS")}, {put("a", "SUCCESS")}},
			[]string{"a STARTED", "b SUCCESS", "a SUCCESS"}, nil},
		{"absence counts only at first", steps{{put("a", "STARTED"), absent("a")}, {absent("a"), absent("b")}, {absent("b"), put("a", "SUCCESS")},
			{put("b", "SUCCESS")}}, []string{"a STARTED", "b PENDING", "a SUCCESS", "b SUCCESS"}, nil},
		{"after the end", steps{{put("a", "SUCCESS")}, {put("a", "STARTED"), put("c", "SUCCESS"), put("b", "SUCCESS")}},
			[]string{"a SUCCESS", "b SUCCESS"}, nil},
		{"failure after news", steps{{put("a", "SUCCESS"), func(in *Inbox) { in.Fail(failed) }, func(in *Inbox) { in.Fail(nil) }}},
			[]string{"a SUCCESS"}, failed},
		{"failure after all", steps{{put("a", "SUCCESS"), put("b", "SUCCESS"), func(in *Inbox) { in.Fail(failed) }}},
			[]string{"a SUCCESS", "b SUCCESS"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in, ids := NewInbox([]string{"a", "b", "a"})
			if !slices.Equal(ids, []string{"a", "b"}) {
				t.Errorf("ids %v", ids)
			}
			step := func() {
				if len(tt.steps) > 0 {
					for _, f := range tt.steps[0] {
						f(in)
					}
					tt.steps = tt.steps[1:]
				}
			}
			step()
			var got, left []string
			var ended error
			in.Run(t.Context(), codec, func(id string) { left = append(left, id) }, func(m *protocol.ResultMeta, err error) bool {
				if err != nil {
					ended = err
					return true
				}
				got = append(got, fmt.Sprint(m.TaskID, " ", m.Status))
				step()
				return true
			})
			if !slices.Equal(got, tt.want) || !errors.Is(ended, tt.err) {
				t.Errorf("got %v, %v; want %v, %v", got, ended, tt.want, tt.err)
			}
			if want := len(ids); tt.err == nil && len(left) != want {
				t.Errorf("left %v", left)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	in, _ := NewInbox([]string{"a"})
	in.Run(ctx, codec, nil, func(m *protocol.ResultMeta, err error) bool {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, %v", m, err)
		}
		return true
	})
}
