package task

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gelery/gelery/internal/spelling"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
)

// dict writes the settings as the options of a signature, under apply_async's names.
func (s *settings) dict() (map[string]any, error) {
	d := map[string]any{}
	for name, text := range s.texts() {
		if *text != "" {
			d[name] = *text
		}
	}
	for name, span := range s.spans() {
		if *span > 0 {
			d[name] = seconds(*span)
		}
	}
	if s.Priority != nil {
		d["priority"] = int64(*s.Priority)
	}
	if s.groupIndex != nil {
		d["group_index"] = int64(*s.groupIndex)
	}
	if s.retries != 0 {
		d["retries"] = int64(s.retries)
	}
	if s.IgnoreResult != nil {
		d["ignore_result"] = *s.IgnoreResult
	}
	if s.Transient {
		d["delivery_mode"] = int64(1)
	}
	if !s.eta.IsZero() {
		d["eta"] = protocol.FormatTime(s.eta)
	}
	if !s.expiresAt.IsZero() {
		d["expires"] = protocol.FormatTime(s.expiresAt)
	}
	if len(s.embed.Callbacks) > 0 {
		d["link"] = signatureList(s.embed.Callbacks)
	}
	if len(s.embed.Errbacks) > 0 {
		d["link_error"] = signatureList(s.embed.Errbacks)
	}
	return d, s.dictJSON(d)
}

// dictJSON adds what the settings hold as JSON text: headers, and stamps, which are options of their own names.
func (s *settings) dictJSON(d map[string]any) error {
	if len(s.headers) > 0 {
		headers := map[string]any{}
		for _, h := range s.headers {
			v, err := serialization.DecodeJSON(h.Value)
			if err != nil {
				return fmt.Errorf("header %q: %w", h.Name, err)
			}
			headers[h.Name] = v
		}
		d["headers"] = headers
	}
	if len(s.stampedHeaders) == 0 {
		return nil
	}
	names := make([]any, len(s.stampedHeaders))
	for i, name := range s.stampedHeaders {
		v, err := serialization.DecodeJSON(s.stamps[name])
		if err != nil {
			return fmt.Errorf("stamp %q: %w", name, err)
		}
		names[i], d[name] = name, v
	}
	d["stamped_headers"] = names
	return nil
}

func signatureList(all []protocol.Signature) []any {
	list := make([]any, len(all))
	for i, sig := range all {
		list[i] = sig.Value()
	}
	return list
}

// texts are the settings that are plain text, by their names in a signature's options.
func (s *settings) texts() map[string]*string {
	return map[string]*string{
		"task_id": &s.id, "reply_to": &s.replyTo, "group_id": &s.group, "root_id": &s.rootID, "parent_id": &s.parentID,
		"queue": &s.Queue, "exchange": &s.Exchange, "routing_key": &s.RoutingKey, "serializer": &s.Serializer,
		"compression": &s.Compression, "shadow": &s.shadow,
	}
}

// spans are the settings that are a number of seconds.
func (s *settings) spans() map[string]*time.Duration {
	return map[string]*time.Duration{
		"countdown": &s.countdown, "expires": &s.Expires, "time_limit": &s.TimeLimit, "soft_time_limit": &s.SoftTimeLimit,
	}
}

// signatureOptions are the options in a signature, as any Celery wrote them: null is absent, unknown names are ignored.
type signatureOptions map[string]any

func (o signatureOptions) String() string {
	return fmt.Sprintf("signature options %q", slices.Sorted(maps.Keys(o)))
}

func (o signatureOptions) applyRetry(s *settings) error { return o.applySend(s) }

func (o signatureOptions) applySend(s *settings) error {
	texts, spans := s.texts(), s.spans()
	for _, name := range slices.Sorted(maps.Keys(o)) {
		v, err := value.Of(o[name])
		if err == nil && v != nil {
			if text, ok := texts[name]; ok {
				err = value.Assign(text, v)
			} else if span, ok := spans[name]; ok && (name != "expires" || isNumber(v)) {
				err = value.Assign(span, v)
			} else {
				err = o.applyOther(s, name, v)
			}
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if s.countdown > 0 {
		s.eta = time.Time{} // as in Celery, where it wins
	}
	return nil
}

func isNumber(v any) bool {
	switch v.(type) {
	case int64, float64:
		return true
	}
	return false
}

func (o signatureOptions) applyOther(s *settings, name string, v any) (err error) {
	switch name {
	case "priority":
		s.Priority = new(int)
		return value.Assign(s.Priority, v)
	case "group_index":
		s.groupIndex = new(int)
		return value.Assign(s.groupIndex, v)
	case "retries":
		return value.Assign(&s.retries, v)
	case "replaced_task_nesting":
		return value.Assign(&s.nesting, v)
	case "ignore_result":
		s.IgnoreResult = new(bool)
		return value.Assign(s.IgnoreResult, v)
	case "delivery_mode":
		s.Transient = v == int64(1) || v == "transient"
	case "eta":
		s.eta, err = timeOf(v)
	case "expires":
		s.expiresAt, err = timeOf(v)
	case "link":
		s.embed.Callbacks, err = signaturesOf(v)
	case "link_error":
		s.embed.Errbacks, err = signaturesOf(v)
	case "chain":
		s.embed.Chain, err = signaturesOf(v)
	case "chord":
		sig, err := protocol.SignatureFromValue(v)
		s.embed.Chord = &sig
		return err
	case "headers":
		return o.applyHeaders(s, v)
	case "stamped_headers":
		return o.applyStamps(s, v)
	}
	return err
}

// applyHeaders takes the custom headers; standard ones, which a retry leaves among them, come from the options.
func (o signatureOptions) applyHeaders(s *settings, v any) error {
	headers, ok := v.(map[string]any)
	if !ok {
		return errors.New("not an object")
	}
	custom := make(map[string]any, len(headers))
	for name, h := range headers {
		if name != "" && !slices.Contains(standardHeaders, name) {
			custom[name] = h
		}
	}
	return Headers(custom).applySend(s)
}

func (o signatureOptions) applyStamps(s *settings, v any) error {
	var names []string
	if err := value.Assign(&names, v); err != nil {
		return err
	}
	for _, name := range names {
		if err := Stamp(name, o[name]).applySend(s); err != nil {
			return fmt.Errorf("stamp %q: %w", name, err)
		}
	}
	return nil
}

func timeOf(v any) (time.Time, error) {
	switch v := v.(type) {
	case time.Time:
		return v, nil
	case value.LocalTime:
		return v.Time, nil
	case string:
		return protocol.ParseTime(v)
	}
	return time.Time{}, errors.New("not a time")
}

func signaturesOf(v any) ([]protocol.Signature, error) {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	all := make([]protocol.Signature, len(list))
	for i, x := range list {
		var err error
		if all[i], err = protocol.SignatureFromValue(x); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// otherOptions are the names of options beside texts and spans; the last ones are Celery's and have no effect here.
var otherOptions = []string{
	"priority", "group_index", "retries", "ignore_result", "delivery_mode", "eta", "expires", "link", "link_error", "chain", "chord",
	"headers", "stamped_headers", "replaced_task_nesting", "retry", "retry_policy", "add_to_parent", "mandatory", "immediate",
}

// CheckOptions tells which of the signature's own options cannot be what they are, or do not exist: Celery passes those on to
// the broker's library. Options of the tasks in a workflow are not looked at.
func (s Signature) CheckOptions() error {
	if len(s.wire.Options) == 0 {
		return nil
	}
	set, known := &settings{}, knownOptions()
	var stamps []string
	_ = value.Assign(&stamps, s.wire.Options["stamped_headers"])
	for _, name := range slices.Sorted(maps.Keys(s.wire.Options)) {
		if !slices.Contains(known, name) && !slices.Contains(stamps, name) {
			text := "there is no such option"
			if meant := spelling.Nearest(name, known); meant != "" {
				text += "; is it " + meant + "?"
			}
			return fmt.Errorf("%.60s: %s", name, text)
		}
	}
	return signatureOptions(s.wire.Options).applySend(set)
}

// knownOptions are the names of all options.
var knownOptions = sync.OnceValue(func() []string {
	set := &settings{}
	return slices.Concat(otherOptions, slices.Collect(maps.Keys(set.texts())), slices.Collect(maps.Keys(set.spans())))
})
