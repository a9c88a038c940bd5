//go:build cgo

package leakguard

import (
	"fmt"
	"testing"
)

// TestTextsInTurn: texts that come in turn are all kept soon, also those that
// share a place among the hashes.
func TestTextsInTurn(t *testing.T) {
	t.Parallel()
	c := keptTexts(t, Config{})
	for range 200 {
		for i := range maxTexts - 2 {
			readText(t, c, fmt.Sprintf("SELECT a + %d FROM t", i))
		}
	}
	if n := len(c.texts.list); n < maxTexts-2 {
		t.Errorf("%d texts kept, want %d", n, maxTexts-2)
	}
}
