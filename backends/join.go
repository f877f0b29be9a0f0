package backends

import (
	"context"
	"errors"
	"fmt"

	"github.com/gelery/gelery/protocol"
)

// Members lists the tasks whose results make up those of a group, in their order: its children, and in place of a child that is a
// group its own.
func Members(group *protocol.ResultTuple) []string { return appendMembers(nil, group) }

func appendMembers(ids []string, group *protocol.ResultTuple) []string {
	for i := range group.Children {
		if child := &group.Children[i]; child.Children == nil {
			ids = append(ids, child.ID)
		} else {
			ids = appendMembers(ids, child)
		}
	}
	return ids
}

// Join makes the results of a group from the metas of its Members: a list of their results, in which that of a child that is a group
// is a list again. Failed is the first member that did not succeed. A member of which there is no final meta is an error.
func Join(group *protocol.ResultTuple, metas map[string]*protocol.ResultMeta) (results []any, failed *protocol.ResultMeta, err error) {
	results = make([]any, len(group.Children))
	for i := range group.Children {
		child := &group.Children[i]
		if child.Children != nil {
			inner, failed, err := Join(child, metas)
			if failed != nil || err != nil {
				return nil, failed, err
			}
			results[i] = inner
			continue
		}
		m := metas[child.ID]
		switch {
		case m == nil || !m.Status.Ready():
			return nil, nil, fmt.Errorf("the result of task %s of group %s is not stored", child.ID, group.ID)
		case m.Status != protocol.Success:
			return nil, m, nil
		}
		results[i] = m.Result
	}
	return results, nil, nil
}

// JoinChord makes the state of a complete chord from its parts in their order. If its group was saved (nil: it was not), the tree
// gives the results their form; what is stored of tasks in it that were no parts is asked of b. What cannot be read is the chord's
// Err; any other error of b is returned.
func JoinChord(ctx context.Context, b Backend, parts []*protocol.ResultMeta, tree *protocol.ResultTuple) (ChordState, error) {
	state := ChordState{Complete: true}
	for _, m := range parts {
		if m.Status != protocol.Success {
			state.Failed = m
			return state, nil
		}
	}
	if tree == nil {
		state.Results = make([]any, len(parts))
		for i, m := range parts {
			state.Results[i] = m.Result
		}
		return state, nil
	}
	known := make(map[string]*protocol.ResultMeta, len(parts))
	for _, m := range parts {
		known[m.TaskID] = m
	}
	var missing []string
	for _, id := range Members(tree) {
		if known[id] == nil {
			missing = append(missing, id)
		}
	}
	metas, err := b.GetMany(ctx, missing...)
	if err != nil {
		return BrokenChord(err)
	}
	for _, m := range metas {
		known[m.TaskID] = m
	}
	state.Results, state.Failed, state.Err = Join(tree, known)
	return state, nil
}

// BrokenChord is the state of a complete chord of which something cannot be read. An error that is not about what was read is
// returned: asking again may help.
func BrokenChord(err error) (ChordState, error) {
	var unreadable *DecodeError
	if !errors.As(err, &unreadable) {
		return ChordState{}, err
	}
	return ChordState{Complete: true, Err: err}, nil
}
