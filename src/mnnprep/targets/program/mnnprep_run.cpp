// Runs a kit's model in MNN on this device: every case's inputs in, every output out, as .npy files.
//
//     mnnprep-run KIT -o OUT [--backend cpu] [--precision high] [--memory normal] [--threads N]
//
// KIT is the directory that `mnnprep kit` wrote; OUT must not exist. Each case runs twice: in one module that
// serves all cases (shared), and in a module of its own (fresh). What MNN makes of case I goes to
// OUT/shared/I/J.npy and OUT/fresh/I/J.npy, J being the output's place in kit.txt; OUT/run.txt says how it ran.
//
// Exit codes: 0 every case ran, 1 a case failed, 2 the call is wrong, 3 the kit, OUT or the backend is unusable.
// It needs C++11, POSIX and MNN with its Express API; nothing else.

#include <MNN/Interpreter.hpp>
#include <MNN/expr/Executor.hpp>
#include <MNN/expr/ExprCreator.hpp>
#include <MNN/expr/Module.hpp>

#include <sys/stat.h>

#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using MNN::Express::Dimensionformat;
using MNN::Express::Executor;
using MNN::Express::Module;
using MNN::Express::VARP;

enum ExitCode { kRan = 0, kCaseFailed = 1, kWrongCall = 2, kUnusable = 3 };

struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};
struct WrongCall : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// ---------------------------------------------------------------------------------------------------- options

struct Choice {
    const char* name;
    int value;
};

// MNNForwardType, and BackendConfig's PrecisionMode and MemoryMode, which share their numbers.
const Choice kBackends[] = {{"cpu", MNN_FORWARD_CPU},       {"metal", MNN_FORWARD_METAL},
                            {"cuda", MNN_FORWARD_CUDA},     {"opencl", MNN_FORWARD_OPENCL},
                            {"opengl", MNN_FORWARD_OPENGL}, {"vulkan", MNN_FORWARD_VULKAN},
                            {"nn", MNN_FORWARD_NN},         {"user0", MNN_FORWARD_USER_0}};
const Choice kModes[] = {{"normal", 0}, {"high", 1}, {"low", 2}};

template <size_t N>
int chosen(const Choice (&choices)[N], const std::string& option, const std::string& text) {
    std::string names;
    for (const Choice& choice : choices) {
        if (text == choice.name) {
            return choice.value;
        }
        names += std::string(names.empty() ? "" : ", ") + choice.name;
    }
    throw WrongCall(option + " is " + text + "; give one of " + names);
}

// A whole number of decimal digits from 0 to `most`.
bool wholeNumber(const std::string& text, unsigned long long most, unsigned long long* value) {
    if (text.empty() || text.size() > 18 || text.find_first_not_of("0123456789") != std::string::npos) {
        return false;
    }
    *value = std::strtoull(text.c_str(), nullptr, 10);
    return *value <= most;
}

struct Options {
    std::string kit, output, backend = "cpu", precision = "high", memory = "normal";
    int threads = 0;  // 0: one on the CPU; on a GPU MNN takes the number as its tuning mode, 4: MNN's default
};

Options parsed(int count, char** arguments) {
    Options options;
    for (int i = 1; i < count; ++i) {
        const std::string word = arguments[i];
        if (word.empty() || word[0] != '-') {
            if (!options.kit.empty()) {
                throw WrongCall("there are two kits: " + options.kit + " and " + word);
            }
            options.kit = word;
            continue;
        }
        std::string* text = word == "-o"            ? &options.output
                            : word == "--backend"   ? &options.backend
                            : word == "--precision" ? &options.precision
                            : word == "--memory"    ? &options.memory
                                                    : nullptr;
        if (text == nullptr && word != "--threads") {
            throw WrongCall("unknown option " + word);
        }
        if (++i == count) {
            throw WrongCall(word + " needs a value");
        }
        if (text != nullptr) {
            *text = arguments[i];
            continue;
        }
        unsigned long long number = 0;
        if (!wholeNumber(arguments[i], 1024, &number) || number == 0) {
            throw WrongCall("--threads is " + std::string(arguments[i]) + "; give a number from 1 to 1024");
        }
        options.threads = static_cast<int>(number);
    }
    if (options.kit.empty() || options.output.empty()) {
        throw WrongCall("give the kit's directory and -o OUT");
    }
    const bool cpu = chosen(kBackends, "--backend", options.backend) == MNN_FORWARD_CPU;
    chosen(kModes, "--precision", options.precision);
    chosen(kModes, "--memory", options.memory);
    options.threads = options.threads != 0 ? options.threads : cpu ? 1 : 4;
    return options;
}

// ---------------------------------------------------------------------------------------------------- the kit

struct Input {
    std::string layout, name;
};

struct Kit {
    std::string bundle, model, layout;
    std::vector<std::pair<int, int>> hints;
    std::vector<Input> inputs;
    std::vector<std::string> outputs, cases;
};

// A name of kit.txt: %XX stands for a byte that a line can't hold.
std::string unescaped(const std::string& text) {
    std::string name;
    for (size_t i = 0; i < text.size(); ++i) {
        const bool coded = text[i] == '%' && i + 2 < text.size();
        name += coded ? static_cast<char>(std::strtol(text.substr(i + 1, 2).c_str(), nullptr, 16)) : text[i];
        i += coded ? 2 : 0;
    }
    return name;
}

void requireFile(const std::string& path, const std::string& size) {
    struct stat found;
    if (stat(path.c_str(), &found) != 0) {
        throw Failure(path + " can't be read: " + std::strerror(errno));
    }
    if (std::to_string(static_cast<unsigned long long>(found.st_size)) != size) {
        throw Failure(path + " has " + std::to_string(static_cast<unsigned long long>(found.st_size)) +
                      " bytes, and the kit's had " + size + "; copy the kit again");
    }
}

Dimensionformat layoutOf(const std::string& name) {
    if (name == "NHWC") {
        return MNN::Express::NHWC;
    }
    if (name == "NCHW" || name == "NC4HW4") {
        return name == "NCHW" ? MNN::Express::NCHW : MNN::Express::NC4HW4;
    }
    throw Failure("kit.txt names the layout " + name + ", which this program does not know");
}

Kit readKit(const std::string& directory) {
    const std::string path = directory + "/kit.txt";
    std::ifstream file(path);
    std::string line;
    if (!std::getline(file, line)) {
        throw Failure(path + " can't be read; give the directory that `mnnprep kit` wrote");
    }
    if (line != "mnnprep-kit 1") {
        throw Failure(path + " begins with '" + line + "', not with 'mnnprep-kit 1'");
    }
    Kit kit;
    bool whole = false;
    while (std::getline(file, line)) {
        const size_t space = line.find(' ');
        const std::string word = line.substr(0, space);
        const std::string rest = space == std::string::npos ? "" : line.substr(space + 1);
        const size_t second = rest.find(' ');
        const std::string first = rest.substr(0, second);
        const std::string last = second == std::string::npos ? "" : rest.substr(second + 1);
        if (word == "bundle") {
            kit.bundle = rest;
        } else if (word == "model") {
            kit.model = directory + "/" + rest;
        } else if (word == "file") {
            requireFile(directory + "/" + last, first);
        } else if (word == "layout") {
            kit.layout = rest;
        } else if (word == "hint") {
            kit.hints.emplace_back(std::atoi(first.c_str()), std::atoi(last.c_str()));
        } else if (word == "input") {
            kit.inputs.push_back({first, unescaped(last)});
        } else if (word == "output") {
            kit.outputs.push_back(unescaped(rest));
        } else if (word == "case") {
            kit.cases.push_back(rest);
        } else if (word == "end") {
            whole = true;
        } else {
            throw Failure(path + " says '" + word + "', which this program does not know");
        }
    }
    if (!whole || kit.model.empty() || kit.outputs.empty() || kit.cases.empty()) {
        throw Failure(path + " is not whole; copy the kit again");
    }
    layoutOf(kit.layout);
    return kit;
}

// ------------------------------------------------------------------------------------------- arrays and .npy

struct Array {
    std::string descr;  // NumPy's: <f4, <i4, |u1 or |i1
    std::vector<int> shape;
    std::vector<char> bytes;
};

struct Dtype {
    const char* descr;
    halide_type_code_t code;
    int bits;
};
const Dtype kDtypes[] = {{"<f4", halide_type_float, 32},
                         {"<i4", halide_type_int, 32},
                         {"|u1", halide_type_uint, 8},
                         {"|i1", halide_type_int, 8}};

const Dtype* dtypeOf(const std::string& descr) {
    for (const Dtype& dtype : kDtypes) {
        if (descr == dtype.descr) {
            return &dtype;
        }
    }
    return nullptr;
}

size_t elements(const std::vector<int>& shape) {
    size_t count = 1;
    for (const int extent : shape) {
        if (extent < 0 || (extent > 0 && count > SIZE_MAX / 8 / static_cast<size_t>(extent))) {
            throw Failure("a tensor has an extent of " + std::to_string(extent));
        }
        count *= static_cast<size_t>(extent);
    }
    return count;
}

std::string shown(const std::vector<int>& shape) {
    std::string text;
    for (const int extent : shape) {
        text += std::to_string(extent) + ", ";
    }
    return text;
}

// What stands behind 'KEY': in an .npy header, up to one of the characters `ends`.
std::string entry(const std::string& header, const std::string& key, const char* ends) {
    const std::string mark = "'" + key + "': ";
    const size_t at = header.find(mark);
    const size_t end = at == std::string::npos ? at : header.find_first_of(ends, at + mark.size());
    return end == std::string::npos ? "" : header.substr(at + mark.size(), end - at - mark.size());
}

// An .npy of version 1.0, in C order (format: numpy.lib.format).
Array readNpy(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream content;
    content << file.rdbuf();
    const std::string data = content.str();
    if (!file || data.size() < 10 || data.compare(0, 8, std::string("\x93NUMPY\x01\x00", 8)) != 0) {
        throw Failure(path + " can't be read as an .npy file");
    }
    const size_t length = static_cast<unsigned char>(data[8]) + 256u * static_cast<unsigned char>(data[9]);
    const std::string header = data.substr(10, length);
    std::string quoted = entry(header, "descr", ",");
    const std::string shape = entry(header, "shape", ")");
    Array array;
    array.descr = quoted.size() > 2 ? quoted.substr(1, quoted.size() - 2) : "";
    const Dtype* dtype = dtypeOf(array.descr);
    if (dtype == nullptr || entry(header, "fortran_order", ",") != "False" || shape.empty()) {
        throw Failure(path + " has the header " + header);
    }
    std::stringstream extents(shape.substr(1));
    for (std::string extent; std::getline(extents, extent, ',');) {
        const size_t start = extent.find_first_not_of(' ');
        unsigned long long number = 0;
        if (start == std::string::npos) {
            continue;  // behind the last comma
        }
        if (!wholeNumber(extent.substr(start), INT_MAX, &number)) {
            throw Failure(path + " has the shape " + shape + ")");
        }
        array.shape.push_back(static_cast<int>(number));
    }
    const size_t wanted = elements(array.shape) * static_cast<size_t>(dtype->bits / 8);
    if (data.size() != 10 + length + wanted) {
        throw Failure(path + " holds " + std::to_string(data.size()) + " bytes, and its header says " +
                      std::to_string(10 + length + wanted));
    }
    array.bytes.assign(data.begin() + static_cast<std::ptrdiff_t>(10 + length), data.end());
    return array;
}

void writeNpy(const std::string& path, const Array& array) {
    std::string header =
        "{'descr': '" + array.descr + "', 'fortran_order': False, 'shape': (" + shown(array.shape) + "), }";
    header += std::string(63 - (10 + header.size()) % 64, ' ') + "\n";
    std::string start("\x93NUMPY\x01\x00", 8);
    start += static_cast<char>(header.size() % 256);
    start += static_cast<char>(header.size() / 256);
    std::ofstream file(path, std::ios::binary);
    file << start << header;
    file.write(array.bytes.data(), static_cast<std::streamsize>(array.bytes.size()));
    file.close();
    if (!file) {
        throw Failure(path + " can't be written: " + std::strerror(errno));
    }
}

void makeDirectory(const std::string& path) {
    if (mkdir(path.c_str(), 0777) != 0) {
        throw Failure(path + " can't be made: " + std::strerror(errno));
    }
}

// -------------------------------------------------------------------------------------------------------- MNN

std::shared_ptr<Executor::RuntimeManager> makeRuntime(const Kit& kit, const Options& options) {
    MNN::BackendConfig backend;
    backend.precision =
        static_cast<MNN::BackendConfig::PrecisionMode>(chosen(kModes, "--precision", options.precision));
    backend.memory = static_cast<MNN::BackendConfig::MemoryMode>(chosen(kModes, "--memory", options.memory));
    MNN::ScheduleConfig config;
    config.type = static_cast<MNNForwardType>(chosen(kBackends, "--backend", options.backend));
    config.numThread = options.threads;
    config.backendConfig = &backend;
    std::shared_ptr<Executor::RuntimeManager> runtime(Executor::RuntimeManager::createRuntimeManager(config),
                                                      Executor::RuntimeManager::destroy);
    if (runtime == nullptr) {
        throw Failure("MNN could not make a runtime for the backend " + options.backend);
    }
    int used = config.type;  // MNN takes its CPU in place of a backend that is not there
    runtime->getInfo(MNN::Interpreter::BACKENDS, &used);
    if (used != config.type && config.type != MNN_FORWARD_CPU) {
        throw Failure("MNN has no backend " + options.backend + " on this device: it would use backend " +
                      std::to_string(used) + " instead");
    }
    for (const auto& hint : kit.hints) {
        runtime->setHint(static_cast<MNN::Interpreter::HintMode>(hint.first), hint.second);
    }
    return runtime;
}

// A loaded model; the module is freed before its runtime.
struct Loaded {
    std::shared_ptr<Executor::RuntimeManager> runtime;
    std::shared_ptr<Module> module;
};

Loaded load(const Kit& kit, const Options& options) {
    std::vector<std::string> names;
    for (const Input& input : kit.inputs) {
        names.push_back(input.name);
    }
    Loaded loaded;
    loaded.runtime = makeRuntime(kit, options);
    loaded.module.reset(Module::load(names, kit.outputs, kit.model.c_str(), loaded.runtime), Module::destroy);
    if (loaded.module == nullptr) {
        throw Failure("MNN could not load the model with these inputs and outputs");
    }
    return loaded;
}

VARP feed(const Array& array, const std::string& layout) {
    const Dtype* dtype = dtypeOf(array.descr);
    const Dimensionformat wanted = layoutOf(layout);
    const Dimensionformat dense = wanted == MNN::Express::NHWC ? MNN::Express::NHWC : MNN::Express::NCHW;
    const bool bytes = array.descr == "|i1";  // goes in as int32 and is cast
    VARP variable = MNN::Express::_Input(
        array.shape, dense,
        bytes ? halide_type_t(halide_type_int, 32) : halide_type_t(dtype->code, static_cast<uint8_t>(dtype->bits)));
    if (!array.bytes.empty()) {
        void* target = variable->writeMap<void>();
        if (target == nullptr) {
            throw Failure("MNN gives no memory for an input");
        }
        if (bytes) {
            for (size_t i = 0; i < array.bytes.size(); ++i) {
                static_cast<int32_t*>(target)[i] = static_cast<signed char>(array.bytes[i]);
            }
        } else {
            std::memcpy(target, array.bytes.data(), array.bytes.size());
        }
    }
    if (bytes) {
        variable = MNN::Express::_Cast(variable, halide_type_t(halide_type_int, 8));
    }
    return wanted == MNN::Express::NC4HW4 ? MNN::Express::_Convert(variable, wanted) : variable;
}

Array fetch(VARP variable, const std::string& name, Dimensionformat dense) {
    const auto* info = variable.get() == nullptr ? nullptr : variable->getInfo();
    if (info != nullptr && info->order == MNN::Express::NC4HW4) {
        variable = MNN::Express::_Convert(variable, dense);
        info = variable->getInfo();
    }
    if (info == nullptr) {
        throw Failure("MNN could not compute the shape of output " + name);
    }
    Array array;
    array.shape.assign(info->dim.begin(), info->dim.end());
    for (const Dtype& dtype : kDtypes) {
        if (dtype.code == info->type.code && dtype.bits == info->type.bits) {
            array.descr = dtype.descr;
            array.bytes.resize(elements(array.shape) * static_cast<size_t>(dtype.bits / 8));
        }
    }
    if (array.descr.empty()) {
        throw Failure("output " + name + " has MNN's type " + std::to_string(info->type.code) + " of " +
                      std::to_string(info->type.bits) + " bits, which this program does not write");
    }
    if (array.bytes.empty()) {
        return array;
    }
    const void* data = variable->readMap<void>();
    if (data == nullptr) {
        throw Failure("MNN could not compute output " + name);
    }
    std::memcpy(array.bytes.data(), data, array.bytes.size());
    return array;
}

void runCase(const Kit& kit, const Loaded& loaded, const std::string& inputs, const std::string& outputs) {
    std::vector<VARP> fed;
    for (size_t i = 0; i < kit.inputs.size(); ++i) {
        fed.push_back(feed(readNpy(inputs + "/" + std::to_string(i) + ".npy"), kit.inputs[i].layout));
    }
    const std::vector<VARP> results = loaded.module->onForward(fed);
    if (results.size() != kit.outputs.size()) {
        throw Failure("MNN returned " + std::to_string(results.size()) + " outputs, but " +
                      std::to_string(kit.outputs.size()) + " were asked for");
    }
    for (size_t i = 0; i < results.size(); ++i) {
        writeNpy(outputs + "/" + std::to_string(i) + ".npy",
                 fetch(results[i], kit.outputs[i], layoutOf(kit.layout)));
    }
}

// ---------------------------------------------------------------------------------------------------- the run

// One pass over all cases; how many of them failed.
int runAll(const Kit& kit, const Options& options, const std::string& pass) {
    makeDirectory(options.output + "/" + pass);
    Loaded loaded;
    int failed = 0;
    for (const std::string& name : kit.cases) {
        const std::string outputs = options.output + "/" + pass + "/" + name;
        makeDirectory(outputs);
        try {
            if (loaded.module == nullptr || pass == "fresh") {
                loaded.module.reset();
                loaded = load(kit, options);
            }
            runCase(kit, loaded, options.kit + "/cases/" + name, outputs);
            std::cout << "mnnprep-run: " << pass << " case " << name << ": " << kit.outputs.size()
                      << " outputs written" << std::endl;
        } catch (const Failure& failure) {
            ++failed;
            std::ofstream(outputs + "/error.txt") << failure.what() << "\n";
            std::cout << "mnnprep-run: " << pass << " case " << name << ": failed: " << failure.what()
                      << std::endl;
        }
    }
    return failed;
}

int run(const Options& options) {
    const uint16_t one = 1;
    if (*reinterpret_cast<const unsigned char*>(&one) != 1) {
        throw Failure("this device is big-endian; the kit's arrays are little-endian");
    }
    const Kit kit = readKit(options.kit);
    makeRuntime(kit, options);  // whether there is such a backend, before anything is written
    makeDirectory(options.output);
    const std::string path = options.output + "/run.txt";
    std::ofstream record(path);
    record << "mnnprep-run 1\n"
           << "bundle " << kit.bundle << "\n"
           << "backend " << options.backend << "\n"
           << "precision " << options.precision << "\n"
           << "memory " << options.memory << "\n"
           << "threads " << options.threads << "\n"
           << "engine " << MNN::getVersion() << std::endl;
    const int failed = runAll(kit, options, "shared") + runAll(kit, options, "fresh");
    record << "end" << std::endl;
    if (!record) {
        throw Failure(path + " can't be written");
    }
    std::cout << "mnnprep-run: " << 2 * kit.cases.size() - static_cast<size_t>(failed) << " of "
              << 2 * kit.cases.size() << " runs done; the outputs are in " << options.output << std::endl;
    return failed == 0 ? kRan : kCaseFailed;
}

}  // namespace

int main(int count, char** arguments) {
    try {
        return run(parsed(count, arguments));
    } catch (const WrongCall& error) {
        std::cerr << "mnnprep-run: " << error.what()
                  << "\nusage: mnnprep-run KIT -o OUT [--backend cpu|metal|cuda|opencl|opengl|vulkan|nn|user0]"
                     " [--precision high|normal|low] [--memory high|normal|low] [--threads N]"
                  << std::endl;
        return kWrongCall;
    } catch (const std::exception& error) {
        std::cerr << "mnnprep-run: " << error.what() << std::endl;
        return kUnusable;
    }
}
