#include "checkpoint/checkpoint.hpp"

#include <fmt/format.h>

#include "checkpoint/input_file.hpp"
#include "checkpoint/json.hpp"
#include "core/error.hpp"

namespace geom {
namespace {

constexpr std::string_view synthetic_prefix = "synth:";
constexpr std::string_view scale_ending = "_scale_inv";
constexpr std::int64_t largest_config = std::int64_t{1} << 24;
constexpr std::int64_t largest_scales = std::int64_t{1} << 30;

[[noreturn]] void fail(const std::string& shown, const std::string& reason) {
    throw Error(ExitCode::input, shown + ": " + reason);
}

bool is_f8(DType dtype) { return dtype == DType::f8_e4m3 || dtype == DType::f8_e5m2; }

bool is_vector(WeightFamily weight) {
    switch (weight) {
        case WeightFamily::input_ln:
        case WeightFamily::post_attn_ln:
        case WeightFamily::q_norm:
        case WeightFamily::k_norm:
        case WeightFamily::q_bias:
        case WeightFamily::k_bias:
        case WeightFamily::v_bias:
        case WeightFamily::final_norm:
            return true;
        default:
            return false;
    }
}

bool is_of_layer(WeightFamily weight) {
    return weight != WeightFamily::embed_tokens && weight != WeightFamily::lm_head &&
           weight != WeightFamily::final_norm;
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// How a stored tensor comes by its shape, in the words of config.json.
struct Expected {
    std::int64_t rows = 0;  ///< of the stored tensor; 0: it has one dimension
    std::int64_t cols = 0;
    std::string origin;

    std::string text() const { return rows == 0 ? fmt::format("[{}]", cols) : fmt::format("[{}, {}]", rows, cols); }
};

std::string attention_words(const ModelConfig& c, std::int64_t heads) {
    const char* key = heads == c.heads ? "num_attention_heads" : "num_key_value_heads";
    return fmt::format("{} {} x head_dim {}", key, heads, c.head_dim);
}

std::string intermediate_words(const ModelConfig& c, bool of_expert) {
    return of_expert ? fmt::format("expert intermediate size {}", c.moe.intermediate)
                     : fmt::format("intermediate_size {}", c.intermediate);
}

Expected fused_shape(const ModelConfig& c, WeightFamily weight) {
    const std::string hidden = fmt::format("hidden_size {} columns", c.hidden);
    if (weight == WeightFamily::gate_proj || weight == WeightFamily::up_proj) {
        return {2 * c.intermediate, c.hidden, fmt::format("2 x intermediate_size {} rows, {}", c.intermediate, hidden)};
    }
    return {(c.heads + 2 * c.kv_heads) * c.head_dim, c.hidden,
            fmt::format("(num_attention_heads {} + 2 x num_key_value_heads {}) x head_dim {} rows, {}", c.heads,
                        c.kv_heads, c.head_dim, hidden)};
}

std::string origin_of(const ModelConfig& c, WeightFamily weight, bool of_expert) {
    const std::string hidden = fmt::format("hidden_size {}", c.hidden);
    switch (weight) {
        case WeightFamily::q_proj:
            return fmt::format("{} rows, {} columns", attention_words(c, c.heads), hidden);
        case WeightFamily::k_proj:
        case WeightFamily::v_proj:
            return fmt::format("{} rows, {} columns", attention_words(c, c.kv_heads), hidden);
        case WeightFamily::o_proj:
            return fmt::format("{} rows, {} columns", hidden, attention_words(c, c.heads));
        case WeightFamily::gate_proj:
        case WeightFamily::up_proj:
            return fmt::format("{} rows, {} columns", intermediate_words(c, of_expert), hidden);
        case WeightFamily::down_proj:
            return fmt::format("{} rows, {} columns", hidden, intermediate_words(c, of_expert));
        case WeightFamily::q_norm:
        case WeightFamily::k_norm:
            return fmt::format("head_dim {}", c.head_dim);
        case WeightFamily::q_bias:
            return attention_words(c, c.heads);
        case WeightFamily::k_bias:
        case WeightFamily::v_bias:
            return attention_words(c, c.kv_heads);
        case WeightFamily::router:
            return fmt::format("{} experts rows, {} columns", c.moe.experts, hidden);
        case WeightFamily::embed_tokens:
        case WeightFamily::lm_head:
            return fmt::format("vocab_size {} rows, {} columns", c.vocabulary, hidden);
        default:
            return hidden;
    }
}

Expected expected_shape(const ModelConfig& config, WeightFamily weight, std::int64_t expert, bool fused) {
    if (fused) return fused_shape(config, weight);
    const MatrixShape shape = shape_of(config, weight, expert);
    return {is_vector(weight) ? 0 : shape.rows, shape.cols, origin_of(config, weight, expert >= 0)};
}

/// What the config says of how the weights were made into integers, for messages: " (quantised with gptq ...)".
std::string quantisation_words(const ModelConfig& config) {
    if (config.quantisation.empty()) return {};
    return fmt::format(" (config.json says that they were quantised with {})", in_quotes(config.quantisation));
}

void check_tensor(const TensorInfo& tensor, const Expected& expected, const std::string& what,
                  const ModelConfig& config) {
    if (!is_floating(tensor.dtype)) {
        fail(what, fmt::format("dtype {}, but a weight has to be BF16, F16, F32, F64, F8_E4M3 or F8_E5M2; models "
                               "quantised to integers are not read{}: give the original",
                               name_of(tensor.dtype), quantisation_words(config)));
    }
    const bool same = expected.rows == 0 ? tensor.shape == std::vector{expected.cols}
                                         : tensor.shape == std::vector{expected.rows, expected.cols};
    if (!same) {
        fail(what, fmt::format("shape [{}], but config.json says {} ({}); the file and the config belong to different "
                               "models, or the download is damaged",
                               fmt::join(tensor.shape, ", "), expected.text(), expected.origin));
    }
}

void check_scales(const TensorInfo& scales, const std::string& what) {
    if (scales.dtype != DType::f32 && scales.dtype != DType::bf16) {
        fail(what, fmt::format("dtype {}, but scales have to be F32 or BF16", name_of(scales.dtype)));
    }
    if (scales.bytes > largest_scales) {
        fail(what,
             fmt::format("{} bytes of scales, more than {}; the checkpoint is damaged", scales.bytes, largest_scales));
    }
}

/// As GPTQ, AWQ and their like keep a matrix.
bool holds_integers_for(const std::string& tensor, const Catalogue& catalogue) {
    const std::string module = tensor.substr(0, tensor.rfind('.') + 1);
    return catalogue.find(module + "qweight") != nullptr || catalogue.find(module + "weight_packed") != nullptr;
}

/// A config that promises more layers or experts than there are would cost memory before the first weight is missed.
void check_promises(const ModelFamily& family, const ModelConfig& config, const Catalogue& catalogue,
                    const StoredNames& names, const std::string& shown) {
    const auto demand = [&](WeightFamily weight, std::int64_t layer, std::int64_t expert, const std::string& promise) {
        const std::string tensor = names(place_of(family, config, weight, layer, expert).tensor);
        if (catalogue.find(tensor) != nullptr) return;
        if (holds_integers_for(tensor, catalogue)) {
            fail(shown, fmt::format("holds integers in place of tensor {}; quantised models are not read{}: give the "
                                    "original",
                                    in_quotes(tensor), quantisation_words(config)));
        }
        fail(shown,
             fmt::format("tensor {} is in none of the {} files, but config.json promises {} of a {} model; the files "
                         "and the config belong to different models, or --family is wrong",
                         in_quotes(tensor), catalogue.files().size(), promise, family.name));
    };
    const std::string layers = fmt::format("{} layers (num_hidden_layers)", config.layers);
    const std::string experts = fmt::format("{} experts a layer", config.moe.experts);
    for (std::int64_t layer = 0; layer < config.layers; ++layer) {
        demand(WeightFamily::q_proj, layer, -1, layers);
        if (!config.layer_has_experts(layer)) continue;
        for (std::int64_t expert = 0; expert < config.moe.experts; ++expert) {
            demand(WeightFamily::gate_proj, layer, expert, experts);
        }
    }
}

/// --family where it is given, else config.json's model_type.
const ModelFamily& chosen_family(const std::string& asked, const std::string& model_type, const std::string& shown) {
    try {
        return model_family(asked.empty() ? model_type : asked);
    } catch (const Error& error) {
        if (asked.empty()) fail(shown, error.what());
        throw Error(ExitCode::usage,
                    fmt::format("--family {} is not known; known are {}", in_quotes(asked), known_families()));
    }
}

/// The family decides about experts, also where --family overrides what config.json says.
void settle_experts(const ModelFamily& family, ModelConfig& config, const std::string& shown) {
    if (family.experts == ModelFamily::Experts::none) {
        config.moe = {};
    } else if (config.moe.experts == 0) {
        fail(shown, fmt::format("a {} model, but neither num_experts nor num_local_experts is there", family.name));
    }
    if (family.experts == ModelFamily::Experts::mixtral) config.moe.renormalise = true;
}

std::int64_t synthetic_parameters(const ModelFamily& family, const ModelConfig& config) {
    std::int64_t count = 0;
    const auto add = [&](WeightFamily weight, std::int64_t layer, std::int64_t expert) {
        if (!has_weight(family, config, weight, layer, expert)) return;
        const MatrixShape shape = shape_of(config, weight, expert);
        count += shape.rows * shape.cols;
    };
    for (int i = 0; i < weight_family_count; ++i) {
        const auto weight = static_cast<WeightFamily>(i);
        for (std::int64_t layer = 0; layer < (is_of_layer(weight) ? config.layers : 1); ++layer) {
            for (std::int64_t expert = -1; expert < config.moe.experts; ++expert) {
                if (expert < 0 || weight == WeightFamily::gate_proj || weight == WeightFamily::up_proj ||
                    weight == WeightFamily::down_proj) {
                    add(weight, layer, expert);
                }
            }
        }
    }
    return count;
}

}  // namespace

Checkpoint Checkpoint::open(const std::string& model, const std::string& revision, const std::string& family) {
    Checkpoint result;
    if (model.starts_with(synthetic_prefix)) {
        if (!revision.empty() || !family.empty()) {
            throw Error(ExitCode::usage, fmt::format("{}: --revision and --family do not go with synth:", model));
        }
        result.name_ = model;
        result.synthetic_ = parse_synthetic(std::string_view(model).substr(synthetic_prefix.size()));
        result.config_ = result.synthetic_->config;
        result.family_ = &model_family(result.synthetic_->family);
        return result;
    }
    result.folder_ = resolve_model(model, revision);
    const ModelFolder& folder = *result.folder_;
    const std::filesystem::path config_path = folder.folder / "config.json";
    check_inside(config_path, folder.allowed_root);
    result.name_ = folder.name;
    result.revision_ = folder.revision;
    result.commit_ = folder.commit;
    result.config_ = parse_model_config(read_text_file(config_path, largest_config), config_path.string());
    result.family_ = &chosen_family(family, result.config_.model_type, config_path.string());
    settle_experts(*result.family_, result.config_, config_path.string());
    result.catalogue_ = Catalogue::open(folder.folder, folder.allowed_root, folder.remedy);
    result.names_ = StoredNames(result.catalogue_);
    check_promises(*result.family_, result.config_, result.catalogue_, result.names_, folder.folder.string());
    return result;
}

const std::vector<std::filesystem::path>& Checkpoint::files() const noexcept { return catalogue_.files(); }

const std::vector<FileStamp>& Checkpoint::stamps() const noexcept { return catalogue_.stamps(); }
const std::vector<TensorInfo>& Checkpoint::tensors() const noexcept { return catalogue_.tensors(); }

std::int64_t Checkpoint::parameters() const {
    if (synthetic_) return synthetic_parameters(*family_, config_);
    std::int64_t count = 0;
    for (const TensorInfo& tensor : catalogue_.tensors()) {
        if (!is_floating(tensor.dtype) || tensor.name.ends_with(scale_ending)) continue;
        count += tensor.bytes / size_of(tensor.dtype);
    }
    return count;
}

bool Checkpoint::has(WeightFamily family, std::int64_t layer, std::int64_t expert) const {
    if (!has_weight(*family_, config_, family, layer, expert)) return false;
    return synthetic_ || catalogue_.find(stored_place(family, layer, expert).tensor) != nullptr;
}

WeightPlace Checkpoint::stored_place(WeightFamily family, std::int64_t layer, std::int64_t expert) const {
    WeightPlace place = place_of(*family_, config_, family, layer, expert);
    place.tensor = names_(place.tensor);
    return place;
}

Weight Checkpoint::weight(WeightFamily family, std::int64_t layer, std::int64_t expert) const {
    const WeightPlace place = stored_place(family, layer, expert);
    if (!has_weight(*family_, config_, family, layer, expert)) {
        fail(name_, fmt::format("tensor {}: a {} model with this config.json has no {} there", in_quotes(place.tensor),
                                family_->name, geom::name_of(family)));
    }
    const MatrixShape shape = shape_of(config_, family, expert);
    Weight weight;
    weight.tensor = place.tensor;
    weight.rows = shape.rows;
    weight.cols = shape.cols;
    weight.first_row = place.rows ? place.rows->begin : 0;
    if (synthetic_) {
        weight.dtype = synthetic_->dtype;
        weight.source = synthetic_source(*synthetic_, family, place.tensor, is_of_layer(family) ? layer : -1,
                                         weight.first_row * weight.cols);
        return weight;
    }
    const TensorInfo* tensor = catalogue_.find(place.tensor);
    if (tensor == nullptr) {
        fail(name_, fmt::format("tensor {} is in none of its {} files; a {} model needs it ({}); the checkpoint is "
                                "incomplete, or of another family",
                                in_quotes(place.tensor), files().size(), family_->name, geom::name_of(family)));
    }
    const std::string file = files()[static_cast<std::size_t>(tensor->file)].string();
    const std::string what = fmt::format("{}: tensor {}", file, in_quotes(tensor->name));
    check_tensor(*tensor, expected_shape(config_, family, expert, place.rows.has_value()), what, config_);
    weight.dtype = tensor->dtype;
    weight.source = FileSource{tensor->file, tensor->offset + weight.first_row * weight.row_bytes()};
    if (is_f8(weight.dtype)) weight.scales = scales_of(*tensor);
    return weight;
}

ScaleSource Checkpoint::scales_of(const TensorInfo& tensor) const {
    const TensorInfo* scales = catalogue_.find(tensor.name + std::string(scale_ending));
    if (scales == nullptr) {
        fail(files()[static_cast<std::size_t>(tensor.file)].string(),
             fmt::format("tensor {}: {} without its scales, tensor {}; the checkpoint is incomplete, or quantised in a "
                         "way that is not read",
                         in_quotes(tensor.name), geom::name_of(tensor.dtype),
                         in_quotes(tensor.name + std::string(scale_ending))));
    }
    const std::string what =
        fmt::format("{}: tensor {}", files()[static_cast<std::size_t>(scales->file)].string(), in_quotes(scales->name));
    const std::int64_t rows = tensor.shape.size() > 1 ? tensor.shape.front() : 1, cols = tensor.shape.back();
    ScaleSource source{scales->name, {scales->file, scales->offset}, scales->dtype, 1, 1, rows, cols};
    if (!scales->shape.empty() && scales->shape != std::vector<std::int64_t>{1}) {
        source.block_rows = config_.scale_block_rows;
        source.block_cols = config_.scale_block_cols;
        if (source.block_rows == 0)
            fail(what, "block scales, but config.json has no quantization_config.weight_block_size");
        source.rows = ceil_div(rows, source.block_rows);
        source.cols = ceil_div(cols, source.block_cols);
        if (scales->shape != std::vector{source.rows, source.cols}) {
            fail(what,
                 fmt::format("shape [{}], but a [{}, {}] tensor in blocks of [{}, {}] has [{}, {}] scales; the config "
                             "belongs to another model, or the download is damaged",
                             fmt::join(scales->shape, ", "), rows, cols, source.block_rows, source.block_cols,
                             source.rows, source.cols));
        }
    }
    check_scales(*scales, what);
    return source;
}

}  // namespace geom
