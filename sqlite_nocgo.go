//go:build !cgo

package leakguard

import (
	"database/sql/driver"
	"fmt"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Without cgo go-sqlite3 opens no connection, so nothing here is ever asked.

func gaveUp(error) bool { return false }

func blockedBy(error) (tracker.Reason, bool) { return "", false }

func codeError(code int) error { return fmt.Errorf("sqlite: result code %d", code) }

func textResult() driver.Result { return driver.RowsAffected(0) }

func isCode(error, int) bool { return false }

func timeLayouts() []string { return nil }

func rowsOf(sqliteStmt) sqliteRows { return nil }

func alike() bool { return false }
