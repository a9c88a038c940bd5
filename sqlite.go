package leakguard

import (
	"database/sql/driver"
	"fmt"

	"github.com/mattn/go-sqlite3"
)

// What the guard needs of go-sqlite3's types. They are asked for as interfaces
// so that the package builds without cgo, where go-sqlite3 has no methods.
type (
	sqliteConn interface {
		driver.Conn
		driver.Pinger
		driver.ExecerContext
		driver.QueryerContext
		driver.ConnPrepareContext
		driver.ConnBeginTx
		AutoCommit() bool
		GetFilename(schema string) string
	}
	sqliteStmt interface {
		driver.Stmt
		driver.StmtExecContext
		driver.StmtQueryContext
	}
	sqliteRows interface {
		driver.Rows
		driver.RowsColumnTypeDatabaseTypeName
		driver.RowsColumnTypeNullable
		driver.RowsColumnTypeScanType
	}
)

// lacking is the error for a value of go-sqlite3 that is not what it was.
func lacking(v any) error {
	return fmt.Errorf("leakguard: go-sqlite3's %T lacks methods that this version of leakguard needs (it was made for v1.14.53)", v)
}

// SQLiteConn returns go-sqlite3's connection behind the value that
// sql.Conn.Raw passes on, for Backup, RegisterFunc and the like. It also
// accepts a *sqlite3.SQLiteConn itself, and connections of other drivers that
// wrap the guard and have a method Raw() driver.Conn.
//
// What is done with it passes the guard by: until the connection is checked in
// it is only reported, never undone, and policy never recycles it again.
func SQLiteConn(driverConn any) (*sqlite3.SQLiteConn, bool) {
	for range 8 { // wrappers around wrappers end somewhere
		if inner, ok := driverConn.(*sqlite3.SQLiteConn); ok {
			return inner, inner != nil
		}
		wrapper, ok := driverConn.(interface{ Raw() driver.Conn })
		if !ok {
			return nil, false
		}
		driverConn = wrapper.Raw()
	}
	return nil, false
}
