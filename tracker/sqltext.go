package tracker

import (
	"fmt"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/sqltext"
)

// SQLText says how the SQL texts of a pool are told: in leaks, events, logs, errors,
// reports, on the page, in JSON and OpenTelemetry. The text itself stays in the
// program.
type SQLText uint8

const (
	// SQLRedacted tells texts without the values that are written in them: strings,
	// blobs and numbers are ?, lists of them are folded, comments and what is in
	// double quotes and no plain name go. Names, keywords and parameters stay. Of a
	// text at most 64 KiB are read and 4 KiB told. The default.
	SQLRedacted SQLText = iota
	// SQLFull tells texts as the program wrote them.
	SQLFull
	// SQLOff tells none.
	SQLOff
)

var sqlTextNames = [...]string{SQLRedacted: "redacted", SQLFull: "full", SQLOff: "off"}

// String returns "redacted", "full" or "off".
func (s SQLText) String() string {
	if int(s) < len(sqlTextNames) {
		return sqlTextNames[s]
	}
	return fmt.Sprintf("SQLText(%d)", uint8(s))
}

// MarshalText spells the value as the DSN does.
func (s SQLText) MarshalText() ([]byte, error) {
	if int(s) >= len(sqlTextNames) {
		return nil, fmt.Errorf("unknown SQL text setting %d", uint8(s))
	}
	return []byte(sqlTextNames[s]), nil
}

// UnmarshalText accepts "redacted", "full" and "off".
func (s *SQLText) UnmarshalText(text []byte) error {
	for i, name := range sqlTextNames {
		if string(text) == name {
			*s = SQLText(i)
			return nil
		}
	}
	return fmt.Errorf("unknown SQL text setting %q: want redacted, full or off", text)
}

// told returns a text as it may be told. Whatever leaves the tracker goes through
// here when it is made, so that no output has to think of it.
func (s SQLText) told(query string) string {
	switch s {
	case SQLFull:
		return query
	case SQLOff:
		return ""
	}
	return sqltext.Redact(query)
}

// told returns a text of the pool as it may be told.
func (c *Conn) told(query string) string { return c.pool.sql.told(query) }
