package san

import "testing"

func TestSizesBeyondTheRangeAreRefused(t *testing.T) {
	for _, s := range []string{"8EiB", "9223372036854775808", "9007199254740992KiB", "-9223372036854775808KiB", "-9007199254740993KiB"} {
		if n, err := ParseSize(s); KindOf(err) != KindInvalid {
			t.Errorf("%s is taken for %d (%v)", s, n, err)
		}
	}
	for s, want := range map[string]int64{"80MiB": 80 << 20, " 2 g ": 2 << 30, "1PB": 1e15, "-5": -5, "9007199254740991KiB": 9007199254740991 << 10} {
		if n, err := ParseSize(s); err != nil || n != want {
			t.Errorf("%s is taken for %d (%v), want %d", s, n, err, want)
		}
	}
}
