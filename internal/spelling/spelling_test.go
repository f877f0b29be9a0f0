package spelling

import "testing"

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"task_acks_late", "task_time_limit", "timezone", "url"}
	for word, want := range map[string]string{
		"task_ack_late": "task_acks_late", "task_acks_later": "task_acks_late", "tsak_time_limit": "task_time_limit",
		"timzone": "timezone", "ulr": "url", "something_else": "", "": "", "x": "", "url": "url",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "abc", 0}, {"abc", "", 3}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"ab", "ba", 2}} {
		if got := Distance(tt.a, tt.b); got != tt.want {
			t.Errorf("%q %q: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
