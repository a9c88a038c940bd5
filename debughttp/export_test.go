package debughttp

import (
	"net/http"
	"time"
)

// SetClock replaces a handler's clock.
func SetClock(h http.Handler, now func() time.Time) { h.(*handler).now = now }
