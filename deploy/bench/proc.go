package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc/<pid>/stat: USER_HZ, which is 100 on every Linux (proc_pid_stat(5)).
const tick = 10 * time.Millisecond

// stat is what we read of /proc/<pid>/stat.
type stat struct {
	parent int
	cpu    time.Duration // user and system, of all threads; children that have ended are not in it
}

// parseStat reads the content of /proc/<pid>/stat. The second field, the name in parentheses, may hold anything, a
// closing parenthesis included: fields are counted from the last one.
func parseStat(content []byte) (stat, error) {
	end := bytes.LastIndexByte(content, ')')
	if end < 0 {
		return stat{}, errors.New("process status: no name")
	}
	fields := strings.Fields(string(content[end+1:])) // from field 3 on
	if len(fields) < 13 {
		return stat{}, fmt.Errorf("process status: %d fields", len(fields))
	}
	parent, err := strconv.Atoi(fields[4-3])
	if err != nil {
		return stat{}, fmt.Errorf("process status: parent: %w", err)
	}
	user, errUser := strconv.ParseUint(fields[14-3], 10, 53)
	system, errSystem := strconv.ParseUint(fields[15-3], 10, 53)
	if err := errors.Join(errUser, errSystem); err != nil {
		return stat{}, fmt.Errorf("process status: times: %w", err)
	}
	return stat{parent, time.Duration(user+system) * tick}, nil
}

// cpuTime is what the processes have used so far, together.
func cpuTime(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		content, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil {
			return 0, err
		}
		s, err := parseStat(content)
		if err != nil {
			return 0, err
		}
		sum += s.cpu
	}
	return sum, nil
}

// childrenOf finds the processes that a process started.
func childrenOf(parent int) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue // it ended meanwhile
		}
		if s, err := parseStat(content); err == nil && s.parent == parent {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				return nil, err
			}
			found = append(found, pid)
		}
	}
	return found, nil
}

// machine says where the figures come from.
type machine struct {
	Processor  string `json:"processor"`
	Processors int    `json:"processors"`
	Kernel     string `json:"kernel"`
	FileSystem string `json:"file_system"` // of the audit log
	Go         string `json:"go"`          // of the ReverseProxy and the load
	Cardstile  string `json:"cardstile"`
	Nginx      string `json:"nginx,omitempty"`
	LoadBefore string `json:"load_before"`
	LoadAfter  string `json:"load_after"`
}

func newMachine(dir string) machine {
	m := machine{Processor: "unknown", Processors: runtime.NumCPU(), Kernel: kernel(), FileSystem: fileSystem(dir), Go: runtime.Version(), LoadBefore: loadAverage()}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				m.Processor = strings.TrimSpace(value)
				break
			}
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		m.Go = info.GoVersion
	}
	return m
}

// loadAverage is the system's load over 1, 5 and 15 minutes.
func loadAverage() string {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	fields := strings.Fields(string(content))
	return strings.Join(fields[:min(3, len(fields))], " ")
}
