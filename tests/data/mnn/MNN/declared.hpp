// The part of MNN's C++ API that the kit's program uses, declared for the tests, which have no MNN to build
// against: laid out as in MNN 3.6, so that the program can be linked with the library inside MNN's Python
// package, and run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

enum halide_type_code_t { halide_type_int = 0, halide_type_uint = 1, halide_type_float = 2 };

struct halide_type_t {
    halide_type_code_t code = halide_type_int;
    uint8_t bits = 0;
    uint16_t lanes = 1;
    halide_type_t(halide_type_code_t kind, uint8_t width) : code(kind), bits(width) {}
};

enum MNNForwardType {
    MNN_FORWARD_CPU = 0,
    MNN_FORWARD_METAL = 1,
    MNN_FORWARD_CUDA = 2,
    MNN_FORWARD_OPENCL = 3,
    MNN_FORWARD_NN = 5,
    MNN_FORWARD_OPENGL = 6,
    MNN_FORWARD_VULKAN = 7,
    MNN_FORWARD_USER_0 = 8,
};

namespace MNN {

const char* getVersion();

struct BackendConfig {
    enum MemoryMode { Memory_Normal = 0, Memory_High, Memory_Low };
    enum PowerMode { Power_Normal = 0, Power_High, Power_Low };
    enum PrecisionMode { Precision_Normal = 0, Precision_High, Precision_Low, Precision_Low_BF16 };
    MemoryMode memory = Memory_Normal;
    PowerMode power = Power_Normal;
    PrecisionMode precision = Precision_Normal;
    void* sharedContext = nullptr;
};

struct ScheduleConfig {
    struct Path {
        enum Mode { Op = 0, Tensor = 1 };
        std::vector<std::string> inputs, outputs;
        Mode mode = Op;
    };
    std::vector<std::string> saveTensors;
    MNNForwardType type = MNN_FORWARD_CPU;
    int numThread = 4;
    Path path;
    MNNForwardType backupType = MNN_FORWARD_CPU;
    BackendConfig* backendConfig = nullptr;
};

class Interpreter {
public:
    enum SessionInfoCode { MEMORY = 0, FLOPS = 1, BACKENDS = 2 };
    enum HintMode { MAX_TUNING_NUMBER = 0, WINOGRAD_MEMORY_LEVEL = 3 };
};

namespace Express {

enum Dimensionformat { NHWC, NC4HW4, NCHW };

class Variable {
public:
    struct Info {
        Dimensionformat order;
        std::vector<int> dim;
        halide_type_t type;
        size_t size;
    };
    const Info* getInfo();
    template <typename T>
    const T* readMap() {
        return static_cast<const T*>(readInternal());
    }
    template <typename T>
    T* writeMap() {
        return static_cast<T*>(writeInternal());
    }

private:
    void* readInternal(bool forShape = false);
    void* writeInternal(bool inform = true);
};

class VARP {
public:
    VARP() {}
    VARP(const VARP& other) : content(other.content) {}
    ~VARP() {}
    VARP& operator=(const VARP& other) {
        content = other.content;
        return *this;
    }
    Variable* get() const { return content.get(); }
    Variable* operator->() const { return content.get(); }

private:
    std::shared_ptr<Variable> content;
};

VARP _Input(std::vector<int> shape, Dimensionformat layout, halide_type_t type);
VARP _Convert(VARP variable, Dimensionformat layout);
VARP _Cast(VARP variable, halide_type_t type);

class Executor {
public:
    class RuntimeManager {
    public:
        static RuntimeManager* createRuntimeManager(const ScheduleConfig& config);
        static void destroy(RuntimeManager* manager);
        bool getInfo(Interpreter::SessionInfoCode code, void* target);
        void setHint(Interpreter::HintMode mode, int value);
    };
};

class Module {
public:
    struct Config;
    virtual ~Module();
    virtual std::vector<VARP> onForward(const std::vector<VARP>& inputs) = 0;
    static Module* load(const std::vector<std::string>& inputs, const std::vector<std::string>& outputs,
                        const char* file, std::shared_ptr<Executor::RuntimeManager> manager,
                        const Config* config = nullptr);
    static void destroy(Module* module);
};

}  // namespace Express
}  // namespace MNN
