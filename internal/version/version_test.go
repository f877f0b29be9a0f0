package version

import "testing"

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text string
		want Version
		ok   bool
	}{
		{"3.10.8", Version{3, 10, 8}, true},
		{"7.0", Version{7, 0, 0}, true},
		{"4", Version{4, 0, 0}, true},
		{"4.1.0-rc.1", Version{4, 1, 0}, true},
		{"4.1.0+3.gabc", Version{4, 1, 0}, true},
		{"7.0.15.2", Version{7, 0, 15}, true},
		{"", Version{}, false},
		{"7.x", Version{}, false},
		{"7.-1", Version{}, false},
	}
	for _, tt := range tests {
		if got, ok := Parse(tt.text); got != tt.want || ok != tt.ok {
			t.Errorf("Parse(%q) = %v, %v; want %v, %v", tt.text, got, ok, tt.want, tt.ok)
		}
	}
}

func TestOrder(t *testing.T) {
	t.Parallel()
	v := Version{3, 10, 8}
	for _, newer := range [][3]int{{4, 0, 0}, {3, 11, 0}, {3, 10, 9}} {
		if !v.Before(newer[0], newer[1], newer[2]) {
			t.Errorf("%v is not before %v", v, newer)
		}
	}
	for _, older := range [][3]int{{3, 10, 8}, {3, 9, 99}, {2, 99, 99}} {
		if v.Before(older[0], older[1], older[2]) {
			t.Errorf("%v is before %v", v, older)
		}
	}
	if !v.Within(3, 10, 9) || v.Within(3, 10, 8) || v.Within(3, 11, 9) {
		t.Errorf("%v: within is wrong", v)
	}
}
