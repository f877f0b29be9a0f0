package protocol

import (
	"encoding/json"
	"slices"
	"strconv"
)

// AttemptsHeader counts how often work on a message has begun after it had been handed out before: what a delivery cap is
// compared with. Gelery's own; a message that is handed out once has none.
const AttemptsHeader = "x-gelery-attempts"

// Attempts is the count in AttemptsHeader, 0 without one or with one that is no count.
func (h *Headers) Attempts() int {
	for _, e := range h.Extra {
		if e.Name == AttemptsHeader {
			n, err := strconv.Atoi(string(e.Value))
			if err != nil || n < 0 {
				return 0
			}
			return n
		}
	}
	return 0
}

// SetAttempts replaces the count; 0 removes the header. It does not change the Extra that other Headers share with these.
func (h *Headers) SetAttempts(n int) {
	extra := slices.DeleteFunc(slices.Clone(h.Extra), func(e Header) bool { return e.Name == AttemptsHeader })
	if n > 0 {
		extra = append(extra, Header{AttemptsHeader, json.RawMessage(strconv.Itoa(n))})
	}
	h.Extra = extra
}
