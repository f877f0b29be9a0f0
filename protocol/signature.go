package protocol

import (
	"errors"
	"fmt"
	"maps"
)

// Signature is a task call that is not sent yet, in the dict form Celery writes into messages.
type Signature struct {
	Task        string
	Args        []any
	Kwargs      map[string]any
	Options     map[string]any // what apply_async takes: task_id, queue, countdown, link, stamps, …
	SubtaskType string         // "chain", "group", "chord" or ""
	Immutable   bool           // never receives its parent's result
	Extra       map[string]any // unknown keys, kept
}

// SignatureFromValue reads a signature from its dict form, a canonical value. It is as tolerant as Celery's readers
// together: args, kwargs, options, subtask_type and immutable may be absent or null, and the options link and
// link_error may be one signature in place of a list. Args, Kwargs and Options are not nil afterwards. The signature
// shares its values with v; v is not changed.
func SignatureFromValue(v any) (Signature, error) {
	dict, ok := v.(map[string]any)
	if !ok {
		return Signature{}, errors.New("a signature is not an object")
	}
	s := Signature{Args: []any{}, Kwargs: map[string]any{}, Options: map[string]any{}}
	for key, v := range dict {
		ok := true
		switch key {
		case "task":
			s.Task, ok = v.(string)
		case "args":
			if v != nil {
				s.Args, ok = v.([]any)
			}
		case "kwargs":
			if v != nil {
				s.Kwargs, ok = v.(map[string]any)
			}
		case "options":
			if v != nil {
				s.Options, ok = v.(map[string]any)
			}
		case "subtask_type":
			if v != nil {
				s.SubtaskType, ok = v.(string)
			}
		case "immutable":
			if v != nil {
				s.Immutable, ok = v.(bool)
			}
		default:
			if s.Extra == nil {
				s.Extra = make(map[string]any)
			}
			s.Extra[key] = v
		}
		if !ok {
			return Signature{}, fmt.Errorf("%s of a signature has a value of the wrong kind", key)
		}
	}
	if s.Task == "" {
		return Signature{}, errors.New("a signature names no task")
	}
	cloned := false
	for _, name := range [...]string{"link", "link_error"} {
		if single, ok := s.Options[name].(map[string]any); ok {
			if !cloned {
				s.Options, cloned = maps.Clone(s.Options), true
			}
			s.Options[name] = []any{single}
		}
	}
	return s, nil
}

// Value is the signature in its dict form, always with all six keys: a Python worker cannot build one that lacks args,
// kwargs or options, and fails the task that has it as a callback.
func (s Signature) Value() map[string]any {
	v := make(map[string]any, 6+len(s.Extra))
	maps.Copy(v, s.Extra)
	v["task"] = s.Task
	v["args"] = s.Args
	v["kwargs"] = s.Kwargs
	v["options"] = s.Options
	if s.Args == nil {
		v["args"] = []any{}
	}
	if s.Kwargs == nil {
		v["kwargs"] = map[string]any{}
	}
	if s.Options == nil {
		v["options"] = map[string]any{}
	}
	v["subtask_type"] = textOrNil(s.SubtaskType)
	v["immutable"] = s.Immutable
	return v
}
