package proclocks

import (
	"math"
	"slices"
	"testing"
)

const list = `1: POSIX  ADVISORY  WRITE 3568 fe:00:2531452 120 120
2: FLOCK  ADVISORY  WRITE 3517 fe:00:2531452 0 EOF
3: POSIX  ADVISORY  READ  3568 fe:00:2531452 123 127
3: -> POSIX  ADVISORY  WRITE 77 fe:00:2531452 120 120
4: OFDLCK ADVISORY  READ -1 fe:00:2531452 0 EOF
5: POSIX  ADVISORY  WRITE 0 fe:00:2531452 1073741825 1073741825
6: POSIX  ADVISORY  WRITE 12 08:01:2531452 120 120
7: POSIX  ADVISORY  WRITE 13 fe:00:2531453 120 120
8: POSIX  ADVISORY  WRITE x fe:00:2531452
9: POSIX  ADVISORY  WRITE 14 fe:2531452 1 2
10: POSIX  ADVISORY  WRITE 15 fe:00:2531452 b c
11: POSIX  ADVISORY  WRITE 16 7f345:2c:9 0 1

`

// What is held on the file is found, and nothing else: who waits holds nothing, a
// process that cannot be seen has no number, and what is broken is left out.
func TestParse(t *testing.T) {
	want := []Lock{
		{3568, true, 120, 120}, {3568, false, 123, 127},
		{0, false, 0, math.MaxInt64}, {0, true, 0x40000001, 0x40000001},
	}
	if got := parse([]byte(list), File{0xfe << 8, 2531452}); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// Minor and major numbers of more than eight and twelve bits.
	if got := parse([]byte("1: POSIX ADVISORY READ 5 1234:12345:9 1 2\n"), File{0x1000<<32 | 0x12300<<12 | 0x234<<8 | 0x45, 9}); len(got) != 1 {
		t.Errorf("%v, want one", got)
	}
}

func TestCovers(t *testing.T) {
	l := Lock{First: 123, Last: 127}
	for _, c := range []struct {
		first, last int64
		want        bool
	}{{120, 122, false}, {120, 123, true}, {125, 125, true}, {127, 130, true}, {128, 130, false}, {0, math.MaxInt64, true}} {
		if l.Covers(c.first, c.last) != c.want {
			t.Errorf("%d to %d: %v", c.first, c.last, !c.want)
		}
	}
}
