package debughttp_test

import (
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
)

// slow waits for a lock, at this moment or as the last thing that it did.
type slow struct {
	still
	awaits bool
}

func (s *slow) AwaitsLock() bool { return s.awaits }

type took time.Duration

func (d took) Took() time.Duration { return time.Duration(d) }

// Who waits for a lock at this moment is the page's verdict, and the table has who
// waited, once that is over.
func TestLockWaits(t *testing.T) {
	inBubble(t, func(s *scene) {
		p := s.pool(badPool)
		k := &slow{awaits: true}
		c := s.openFile(p, k, "")
		word := c.Word()
		word.Or(1) // an operation is in flight
		c.WaitsLong(took(1500 * time.Millisecond))
		page := body(t, debughttp.Handler(s.Tracker), "/")
		inOrder(t, page, `class="verdict warn"`, "<strong>1 blocked operation</strong>", "has waited 1.5s for a lock, it is not known whose.")
		lacks(t, page, "Long waits for locks")
		k.awaits = false
		word.Store(word.Load()&^uint64(1) + (1<<16 - 1) + 1)
		page = body(t, debughttp.Handler(s.Tracker), "/")
		inOrder(t, page, "<strong>nothing forgotten</strong>", "Long waits for locks", `<td class="r"><b>1</b></td><td class="r">1.5s</td>`, "debughttp/lockwaits_test.go:", "not known")
	})
}
