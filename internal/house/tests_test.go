package house_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// What makes a test fail on one machine in a thousand, or pass without having looked: a wait by the clock outside of a bubble of virtual time, a port that another
// test may have, and a component whose absence nobody hears of.
func TestTestsAreSteady(t *testing.T) {
	t.Parallel()
	files := 0
	walk(t, "_test.go", func(path string, source []byte) {
		files++
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, source, 0)
		if err != nil {
			t.Error(err)
			return
		}
		virtual := strings.Contains(string(source), `"testing/synctest"`) || strings.Contains(string(source), "/flow/flowtest\"")
		for _, declared := range file.Decls {
			f, is := declared.(*ast.FuncDecl)
			if !is {
				continue
			}
			text := string(source[set.Position(f.Pos()).Offset:set.Position(f.End()).Offset])
			ast.Inspect(f, func(n ast.Node) bool {
				call, is := n.(*ast.CallExpr)
				if !is {
					return true
				}
				at := set.Position(call.Pos())
				switch called(call) {
				case "time.Sleep":
					if !virtual && f.Name.Name != "TestMain" { // which plays processes that others end
						t.Errorf("%s sleeps; wait for what is to happen, or sleep in a bubble of testing/synctest", at)
					}
				case "exec.LookPath":
					if !strings.Contains(text, "ZHIYUN_REQUIRE") {
						t.Errorf("%s looks for a program, and does not fail without it where ZHIYUN_REQUIRE is 1", at)
					}
				case "net.Listen":
					if fixed(call) {
						t.Errorf("%s listens on a port that another test may have; let the system choose it, or draw an address by internal/addrtest", at)
					}
				}
				return true
			})
		}
	})
	if files < 300 {
		t.Errorf("only %d files of tests were read, below %s", files, filepath.Base(root(t)))
	}
}

// called is the package and the function of a call such as net.Listen(...).
func called(call *ast.CallExpr) string {
	if selector, is := call.Fun.(*ast.SelectorExpr); is {
		if of, is := selector.X.(*ast.Ident); is {
			return of.Name + "." + selector.Sel.Name
		}
	}
	return ""
}

// fixed says whether a call listens on a TCP port that is written down.
func fixed(call *ast.CallExpr) bool {
	if len(call.Args) != 2 {
		return false
	}
	addr, is := call.Args[1].(*ast.BasicLit)
	return is && addr.Kind == token.STRING && strings.Contains(addr.Value, ":") && !strings.HasSuffix(addr.Value, `:0"`)
}
