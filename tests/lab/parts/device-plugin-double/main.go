// Command device-plugin-double stands in for NVIDIA's device plugin in the lab: it speaks kubelet's device plugin API for
// real, and advertises the GPUs that nvml-sim's state file shows. It watches that file, so that a fault shows at once.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	resource = "nvidia.com/gpu"
	socket   = "rollcall-lab-gpu.sock"
	// The lab mounts the state's folder here, because the plugin's pod sees nothing else of the node.
	state = api.DevicePluginPath + ".nvml-sim/state.json"
	poll  = 500 * time.Millisecond
)

type plugin struct {
	api.UnimplementedDevicePluginServer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "device-plugin-double:", err)
		os.Exit(1)
	}
}

// run serves until kubelet's socket is another one: kubelet has restarted, has removed ours, and wants to be told again.
func run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := serve(ctx); err != nil {
			return err
		}
	}
	return nil
}

func serve(ctx context.Context) error {
	path := filepath.Join(api.DevicePluginPath, socket)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, plugin{})
	go server.Serve(listener)
	defer server.Stop()
	if err := register(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if _, err := os.Stat(path); err != nil {
			return nil
		}
		time.Sleep(poll)
	}
	return nil
}

func register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	connection, err := grpc.NewClient("unix://"+api.KubeletSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	_, err = api.NewRegistrationClient(connection).Register(ctx, &api.RegisterRequest{
		Version: api.Version, Endpoint: socket, ResourceName: resource, Options: &api.DevicePluginOptions{},
	})
	return err
}

func (plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (plugin) ListAndWatch(_ *api.Empty, stream api.DevicePlugin_ListAndWatchServer) error {
	var last []*api.Device
	for first := true; ; first = false {
		if now := devices(); first || !reflect.DeepEqual(now, last) {
			if err := stream.Send(&api.ListAndWatchResponse{Devices: now}); err != nil {
				return err
			}
			last = now
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-time.After(poll):
		}
	}
}

// devices answers no GPU at all where there is no state, as NVIDIA's plugin does without a driver.
func devices() []*api.Device {
	raw, err := os.ReadFile(state)
	if err != nil {
		return nil
	}
	var shown struct {
		GPUs []struct {
			UUID  string
			Fault *struct{ Lost bool }
		}
	}
	if err := json.Unmarshal(raw, &shown); err != nil {
		return nil
	}
	var all []*api.Device
	for _, gpu := range shown.GPUs {
		health := api.Healthy
		if gpu.Fault != nil && gpu.Fault.Lost {
			health = api.Unhealthy
		}
		all = append(all, &api.Device{ID: gpu.UUID, Health: health})
	}
	return all
}

func (plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	response := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		ids := ""
		for i, id := range container.DevicesIds {
			if i > 0 {
				ids += ","
			}
			ids += id
		}
		response.ContainerResponses = append(response.ContainerResponses, &api.ContainerAllocateResponse{
			Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": ids},
		})
	}
	return response, nil
}
